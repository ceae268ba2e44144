#include "resize.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <vector>

#include "resize_rows.hpp"
#include "resize_weights.hpp"

namespace memrt {

namespace {

// Rows of the input, scaled horizontally when they are asked for, in order. Keeps as many as one output row mixes.
class AcrossRows {
  public:
    AcrossRows(const Pixels<const std::uint8_t>& from, std::size_t width, std::size_t kept, ResizeFilter filter,
               const ResizeRows& kernels)
        : from_(from), kernels_(kernels) {
        if (from.width == width) return;
        weights_.emplace(from.width, width, filter);
        mask_ = std::bit_ceil(kept + 1) - 1;  // rows are made in pairs, so one may come early
        stride_ = 3 * width + 3 * ResizeWeights::kGroup + kRowSlack;
        ring_.resize((mask_ + 1) * stride_);
        padded_.resize(2 * (3 * from.width + kRowSlack));
    }

    // `row` of the scaled picture; the `kept` rows up to the last one asked for are there.
    const std::uint8_t* at(std::size_t row) {
        if (!weights_) return from_.row(row);
        for (; made_ <= row; made_ += 2) {
            const std::size_t next = std::min(made_ + 1, from_.height - 1);
            std::uint8_t* scaled = slot(made_);
            kernels_.across(readable(made_, 0), readable(next, 1), scaled, next == made_ ? scaled : slot(next),
                            *weights_);
        }
        return slot(row);
    }

  private:
    std::uint8_t* slot(std::size_t row) { return ring_.data() + (row & mask_) * stride_; }

    // The last rows of a picture have no slack behind them and are copied.
    const std::uint8_t* readable(std::size_t row, std::size_t which) {
        const std::size_t bytes = 3 * from_.width;
        const std::uint8_t* pixels = from_.row(row);
        const std::uint8_t* end = from_.row(from_.height - 1) + bytes;
        if (static_cast<std::size_t>(end - (pixels + bytes)) >= kRowSlack) return pixels;
        std::uint8_t* copy = padded_.data() + which * (bytes + kRowSlack);
        std::memcpy(copy, pixels, bytes);
        return copy;
    }

    const Pixels<const std::uint8_t> from_;
    const ResizeRows& kernels_;
    std::optional<ResizeWeights> weights_;
    std::size_t mask_ = 0;
    std::size_t stride_ = 0;
    std::size_t made_ = 0;
    std::vector<std::uint8_t> ring_;
    std::vector<std::uint8_t> padded_;
};

void across_then_down(const Pixels<const std::uint8_t>& from, const Pixels<std::uint8_t>& to, ResizeFilter filter,
                      const ResizeRows& kernels) {
    const std::size_t bytes = 3 * to.width;
    if (from.height == to.height) {
        AcrossRows rows(from, to.width, 1, filter, kernels);
        for (std::size_t row = 0; row < to.height; ++row) std::memcpy(to.row(row), rows.at(row), bytes);
        return;
    }
    const ResizeWeights weights(from.height, to.height, filter);
    AcrossRows rows(from, to.width, weights.most, filter, kernels);
    std::vector<const std::uint8_t*> mixed(weights.most);
    for (std::size_t output = 0; output < to.height; ++output) {
        for (std::size_t tap = 0; tap < weights.count[output]; ++tap) {
            mixed[tap] = rows.at(weights.first[output] + tap);
        }
        kernels.down(mixed.data(), to.row(output), bytes, weights, output);
    }
}

void down_then_across(const Pixels<const std::uint8_t>& from, const Pixels<std::uint8_t>& to, ResizeFilter filter,
                      const ResizeRows& kernels) {
    const std::size_t bytes = 3 * from.width;
    std::vector<std::uint8_t> picture(bytes * to.height);
    const Pixels<std::uint8_t> between{picture.data(), to.height, from.width, static_cast<std::ptrdiff_t>(bytes)};
    across_then_down(from, between, filter, kernels);
    across_then_down({between.data, between.height, between.width, between.stride}, to, filter, kernels);
}

// Pillow 13's rule; earlier versions always begin with the horizontal pass. In between, pixels are rounded to 8 bits,
// so the order shows (by one level here and there). A camera's picture that keeps its shape never gets here: only one
// whose height shrinks by more than twice the pixels of its width.
bool down_first(const Pixels<const std::uint8_t>& from, const Pixels<std::uint8_t>& to) {
    const auto shrinks_by = [](std::size_t before, std::size_t after) {
        return static_cast<std::ptrdiff_t>(before) - static_cast<std::ptrdiff_t>(after);
    };
    const std::ptrdiff_t height = shrinks_by(from.height, to.height);
    return height > 0 && height > 2 * shrinks_by(from.width, to.width);
}

}  // namespace

void resize(const Pixels<const std::uint8_t>& from, const Pixels<std::uint8_t>& to, ResizeFilter filter, bool simd) {
    const ResizeRows& kernels = simd ? fastest_rows() : kPortableRows;
    (down_first(from, to) ? down_then_across : across_then_down)(from, to, filter, kernels);
}

}  // namespace memrt
