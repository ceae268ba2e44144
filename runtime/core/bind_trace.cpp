#include <nanobind/ndarray.h>
#include <nanobind/stl/shared_ptr.h>

#include <vector>

#include "bindings.hpp"
#include "trace_ring.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace memrt {

namespace {

auto drain(TraceRing& ring, std::size_t limit) {
    constexpr std::size_t kColumns = 5;
    auto* rows = new std::vector<std::int64_t>();
    const nb::capsule owner(rows, [](void* held) noexcept { delete static_cast<std::vector<std::int64_t>*>(held); });
    TraceEvent event;
    while (rows->size() < limit * kColumns && ring.drain_one(event)) {
        rows->insert(rows->end(), {event.name, event.thread, event.t_ns, event.duration_ns, event.value});
    }
    const std::size_t count = rows->size() / kColumns;
    return nb::ndarray<nb::numpy, std::int64_t, nb::ndim<2>>(rows->data(), {count, kColumns}, owner);
}

}  // namespace

void bind_trace(nb::module_& m) {
    nb::class_<TraceRing>(m, "TraceRing",
                          "Bounded queue of events from any thread to one that drains it. Recording never waits; when "
                          "the ring is full, new events are dropped and counted.")
        .def(nb::init<std::size_t>(), "capacity"_a = 65536)
        .def(
            "record",
            [](TraceRing& self, std::int32_t name, std::int64_t t_ns, std::int64_t duration_ns, std::int64_t value) {
                return self.record({name, this_thread(), t_ns, duration_ns, value});
            },
            "name"_a, "t_ns"_a, "duration_ns"_a = TraceEvent::kInstant, "value"_a = 0,
            "Adds an event of this thread; False when the ring is full. Duration -1: an instant.")
        .def("drain", &drain, "limit"_a = TraceRing::kMaxCapacity,
             "Takes the oldest events: int64 [n, 5] of name, kernel thread id, t_ns, duration_ns, value.")
        .def_prop_ro("capacity", &TraceRing::capacity)
        .def_prop_ro("dropped", &TraceRing::dropped);
}

}  // namespace memrt
