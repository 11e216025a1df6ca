"""From prompts to scored replies: what the policy-gradient loop turns around."""
