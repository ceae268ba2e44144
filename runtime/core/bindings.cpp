#include <nanobind/nanobind.h>

NB_MODULE(_core, m) { m.doc() = "memrt's real-time core"; }
