#pragma once

#include <cstddef>
#include <cstdint>

namespace memrt {

/// \brief Pillow's filters that policies were trained with.
enum class ResizeFilter : std::uint8_t { kBilinear, kBicubic };

/// \brief Rows of 8-bit RGB pixels; `stride` is the distance between rows in bytes.
template <typename Byte>
struct Pixels {
    Byte* data;
    std::size_t height;
    std::size_t width;
    std::ptrdiff_t stride;

    Byte* row(std::size_t index) const { return data + static_cast<std::ptrdiff_t>(index) * stride; }
};

/// \brief Scales `from` to the size of `to`, bit for bit as Pillow's `Image.resize` does it.
///
/// Antialiased: when shrinking, the filter is widened by the scale. Two passes, one per direction, with weights of 22
/// fractional bits and 8-bit pixels in between. Both pictures hold at least one pixel and do not overlap. Memory: the
/// weights, and as many rows of `to`'s width as one output row is mixed from (a whole picture for a steep shrink of the
/// height alone).
///
/// \param simd false keeps to the portable code; the result is the same.
void resize(const Pixels<const std::uint8_t>& from, const Pixels<std::uint8_t>& to, ResizeFilter filter,
            bool simd = true);

}  // namespace memrt
