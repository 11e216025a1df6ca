"""How tests compile: much, and for programs that run once.

Unoptimised programs, with fused kernels made the older way, take less than half the
time in all.
"""

QUICK = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
EIGHT_DEVICES = "--xla_force_host_platform_device_count=8"
