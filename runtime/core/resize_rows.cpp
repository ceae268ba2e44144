#include "resize_rows.hpp"

#include <algorithm>
#include <array>

namespace memrt {

namespace {

std::uint8_t to_byte(std::int32_t sum) {
    return static_cast<std::uint8_t>(std::clamp(sum >> ResizeWeights::kBits, 0, 255));
}

void across_row(const std::uint8_t* from, std::uint8_t* to, const ResizeWeights& weights) {
    for (std::size_t output = 0; output < weights.outputs; ++output) {
        const std::uint8_t* pixel = from + 3 * weights.first[output];
        const std::int32_t* weight = weights.whole.data() + output * weights.padded;
        std::array<std::int32_t, 3> sum{ResizeWeights::kHalf, ResizeWeights::kHalf, ResizeWeights::kHalf};
        for (std::size_t tap = 0; tap < weights.count[output]; ++tap, pixel += 3) {
            for (std::size_t channel = 0; channel < 3; ++channel) sum[channel] += pixel[channel] * weight[tap];
        }
        for (std::size_t channel = 0; channel < 3; ++channel) *to++ = to_byte(sum[channel]);
    }
}

void across(const std::uint8_t* from_a, const std::uint8_t* from_b, std::uint8_t* to_a, std::uint8_t* to_b,
            const ResizeWeights& weights) {
    across_row(from_a, to_a, weights);
    if (to_b != to_a) across_row(from_b, to_b, weights);
}

void down(const std::uint8_t* const* rows, std::uint8_t* to, std::size_t bytes, const ResizeWeights& weights,
          std::size_t output) {
    constexpr std::size_t kBlock = 64;  // sums that compilers keep in vector registers
    const std::int32_t* weight = weights.whole.data() + output * weights.padded;
    for (std::size_t start = 0; start < bytes; start += kBlock) {
        const std::size_t length = std::min(kBlock, bytes - start);
        std::array<std::int32_t, kBlock> sum;
        sum.fill(ResizeWeights::kHalf);
        for (std::size_t tap = 0; tap < weights.count[output]; ++tap) {
            const std::uint8_t* row = rows[tap] + start;
            for (std::size_t index = 0; index < length; ++index) sum[index] += row[index] * weight[tap];
        }
        for (std::size_t index = 0; index < length; ++index) to[start + index] = to_byte(sum[index]);
    }
}

}  // namespace

constexpr ResizeRows kPortableRows{across, down};

}  // namespace memrt
