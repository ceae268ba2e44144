#pragma once

#include <nanobind/nanobind.h>

namespace memrt {

// One function per file of bindings; bindings.cpp calls them all.
void bind_seam(nanobind::module_& m);
void bind_trace(nanobind::module_& m);
void bind_loop(nanobind::module_& m);
void bind_ring(nanobind::module_& m);
void bind_resize(nanobind::module_& m);
void bind_kinematics(nanobind::module_& m);

}  // namespace memrt
