"""What a program that XLA has compiled for a TPU will cost: memory and predicted time.

Everything here is read from the compiled program's text and from tables of the chips;
nothing is measured. `topology` alone needs jax (it compiles); the rest is arithmetic.
"""
