#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>

#include "bindings.hpp"
#include "frame_ring.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace memrt {

namespace {

using Image = nb::ndarray<const std::uint8_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using ImageView = nb::ndarray<nb::numpy, const std::uint8_t, nb::ndim<3>>;

// Python's handle: close() must be able to let go while views still keep the ring itself alive.
struct RingHandle {
    std::shared_ptr<FrameRing> ring;

    FrameRing& get() const {
        if (!ring) throw std::runtime_error("frame ring: closed");
        return *ring;
    }
};

bool write(const RingHandle& self, const Image& image, std::uint64_t index, std::int64_t t_ns) {
    FrameRing& ring = self.get();
    const FrameShape shape = ring.shape();
    if (image.shape(0) != shape.height || image.shape(1) != shape.width || image.shape(2) != shape.channels) {
        throw nb::value_error("FrameRing.write: the image's shape is not the ring's");
    }
    return ring.write(image.data(), index, t_ns);
}

std::optional<FrameRing::Borrowed> borrow(const RingHandle& self, std::optional<std::int64_t> not_after_ns) {
    self.get();
    return FrameRing::borrow(self.ring, not_after_ns.value_or(FrameSlots::kNewest));
}

nb::object latest_copy(const RingHandle& self) {
    const std::optional<FrameRing::Borrowed> frame = borrow(self, std::nullopt);
    if (!frame) return nb::none();
    const FrameShape shape = frame->shape();
    auto* pixels = new std::uint8_t[shape.bytes()];
    const nb::capsule owner(pixels, [](void* held) noexcept { delete[] static_cast<std::uint8_t*>(held); });
    std::copy_n(frame->data(), shape.bytes(), pixels);
    const nb::ndarray<nb::numpy, std::uint8_t, nb::ndim<3>> image(pixels, {shape.height, shape.width, shape.channels},
                                                                  owner);
    return nb::make_tuple(image, frame->index(), frame->t_ns());
}

// The array keeps its BorrowedFrame alive, and with it the mapping and (until release) the pin.
nb::object view(nb::handle self) {
    const auto& frame = nb::cast<const FrameRing::Borrowed&>(self);
    if (frame.released()) throw std::runtime_error("BorrowedFrame: released");
    const FrameShape shape = frame.shape();
    return nb::cast(ImageView(frame.data(), {shape.height, shape.width, shape.channels}, self),
                    nb::rv_policy::reference);
}

}  // namespace

void bind_ring(nb::module_& m) {
    nb::class_<FrameRing::Borrowed>(m, "BorrowedFrame",
                                    "A frame pinned in shared memory. `image` is valid until release(), which also "
                                    "happens at the end of a `with` block or when the last reference goes.")
        .def_prop_ro("image", &view, "Read-only uint8 [height, width, channels], no copy. RuntimeError once released.")
        .def_prop_ro("index", &FrameRing::Borrowed::index)
        .def_prop_ro("t_ns", &FrameRing::Borrowed::t_ns)
        .def_prop_ro("released", &FrameRing::Borrowed::released)
        .def("release", &FrameRing::Borrowed::release)
        .def("__enter__", [](nb::object self) { return self; })
        .def("__exit__", [](FrameRing::Borrowed& self, const nb::args&) { self.release(); });

    nb::class_<RingHandle>(m, "FrameRing",
                           "Frames of one camera in shared memory: one writer, up to 16 readers, any process of this "
                           "machine. A torn frame is never seen; the writer never waits.")
        .def_static(
            "create",
            [](const std::string& name, std::uint32_t slots, std::uint32_t height, std::uint32_t width,
               std::uint32_t channels) {
                return RingHandle{FrameRing::create(name, slots, {height, width, channels})};
            },
            "name"_a, "slots"_a, "height"_a, "width"_a, "channels"_a = 3,
            "Makes a ring and becomes its writer. RuntimeError when `name` has a living writer.")
        .def_static(
            "open", [](const std::string& name) { return RingHandle{FrameRing::open(name)}; }, "name"_a,
            "Opens a ring as a reader. RuntimeError when there is none.")
        .def("write", &write, nb::arg("image").noconvert(), "index"_a, "t_ns"_a,
             "Adds a C-contiguous uint8 [height, width, channels]; False when readers pin every slot.")
        .def("borrow", &borrow, "not_after_ns"_a = nb::none(),
             "The newest frame (with `t_ns` <= `not_after_ns`), pinned; None when the ring holds no such frame.")
        .def("latest_copy", &latest_copy, "(copy of the newest image, index, t_ns); None before the first one.")
        .def(
            "unlink", [](RingHandle& self) { self.get().unlink(); }, "Removes the name. Closing a writer does it too.")
        .def(
            "close", [](RingHandle& self) { self.ring.reset(); }, "Lets go; borrowed frames stay valid.")
        .def_prop_ro("name", [](const RingHandle& self) { return self.get().name(); })
        .def_prop_ro("shape",
                     [](const RingHandle& self) {
                         const FrameShape shape = self.get().shape();
                         return nb::make_tuple(shape.height, shape.width, shape.channels);
                     })
        .def_prop_ro("slots", [](const RingHandle& self) { return self.get().slots(); })
        .def_prop_ro("written", [](const RingHandle& self) { return self.get().written(); })
        .def_prop_ro("dropped", [](const RingHandle& self) { return self.get().dropped(); })
        .def("__enter__", [](nb::object self) { return self; })
        .def("__exit__", [](RingHandle& self, const nb::args&) { self.ring.reset(); });
}

}  // namespace memrt
