"""Floor 2: pages that need nothing but themselves: templates, numbers, sounds."""
