#include <nanobind/ndarray.h>

#include "bindings.hpp"
#include "resize.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace memrt {

namespace {

template <typename Array>
auto to_pixels(const Array& array) {
    using Byte = typename Array::Scalar;
    const Pixels<Byte> pixels{array.data(), array.shape(0), array.shape(1), array.stride(0)};
    const bool packed = array.shape(2) == 3 && array.stride(2) == 1 && (pixels.width == 1 || array.stride(1) == 3);
    const bool ordered = pixels.height == 1 || pixels.stride >= static_cast<std::ptrdiff_t>(3 * pixels.width);
    if (!packed || !ordered) throw nb::value_error("resize: expected uint8 [height, width, 3] with contiguous rows");
    if (pixels.height == 0 || pixels.width == 0) throw nb::value_error("resize: a picture has no pixels");
    return pixels;
}

template <ResizeFilter filter>
void resize_into(const nb::ndarray<const std::uint8_t, nb::ndim<3>, nb::device::cpu>& image,
                 const nb::ndarray<std::uint8_t, nb::ndim<3>, nb::device::cpu>& out, bool simd) {
    const auto from = to_pixels(image);
    const auto to = to_pixels(out);
    const nb::gil_scoped_release unlocked;
    resize(from, to, filter, simd);
}

}  // namespace

void bind_resize(nb::module_& m) {
    m.def("resize_bilinear", &resize_into<ResizeFilter::kBilinear>, nb::arg("image").noconvert(),
          nb::arg("out").noconvert(), nb::kw_only(), "simd"_a = true,
          "Scales uint8 [height, width, 3] to the size of `out`, as Pillow's BILINEAR does. Rows must be contiguous, "
          "so `out` may be a window of a larger picture; it may not overlap `image`. `simd=False`: same bits, portable "
          "code.");
    m.def("resize_bicubic", &resize_into<ResizeFilter::kBicubic>, nb::arg("image").noconvert(),
          nb::arg("out").noconvert(), nb::kw_only(), "simd"_a = true, "The same as Pillow's BICUBIC does.");
}

}  // namespace memrt
