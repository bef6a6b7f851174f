"""The CUDA kernels: compiled without a GPU (``table``), and measured on one (``main``)."""
