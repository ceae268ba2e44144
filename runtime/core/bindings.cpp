#include "bindings.hpp"

#include "clock.hpp"

NB_MODULE(_core, m) {
    m.doc() = "memrt's real-time core: seam, control loop, chunk buffer, frame ring, trace ring, clock.";
    m.def("now_ns", &memrt::now_ns, "CLOCK_MONOTONIC in nanoseconds.");
    memrt::bind_seam(m);
    memrt::bind_trace(m);
    memrt::bind_loop(m);
    memrt::bind_ring(m);
    memrt::bind_resize(m);
    memrt::bind_kinematics(m);
}
