"""Operations with more than one implementation; :mod:`ptr_fast.kernels.dispatch` chooses among them."""
