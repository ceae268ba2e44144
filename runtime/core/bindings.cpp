#include "bindings.hpp"

NB_MODULE(_core, m) {
    m.doc() = "memrt's real-time core: seam, control loop, frame ring, trace ring.";
    memrt::bind_seam(m);
}
