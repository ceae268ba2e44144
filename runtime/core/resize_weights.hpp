#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "resize.hpp"

namespace memrt {

/// \brief The weights of one direction of a resize: output `i` mixes the inputs first[i] … first[i] + count[i] − 1.
///
/// Weights are in fixed point with kBits fractional bits, as Pillow rounds them. For 16-bit multipliers each is also
/// given in two parts, weight = high · 2^kLowBits + low. Rows of weights are padded with zeros to `padded` entries, and
/// there are kGroup − 1 outputs of no inputs after the last one, so that vector code needs no special cases.
struct ResizeWeights {
    static constexpr int kBits = 22;  // Pillow's PRECISION_BITS: 32 less 8 for the pixel and 2 for sign and overshoot
    static constexpr int kLowBits = 11;
    static constexpr std::int32_t kHalf = 1 << (kBits - 1);
    static constexpr std::size_t kGroup = 4;

    std::size_t outputs;  ///< How many outputs are meant.
    std::size_t padded;   ///< Weights per output, a multiple of kGroup.
    std::size_t most;     ///< The largest count.
    std::vector<std::size_t> first;
    std::vector<std::size_t> count;
    std::vector<std::int32_t> whole;
    std::vector<std::int16_t> high;
    std::vector<std::int16_t> low;

    ResizeWeights(std::size_t inputs, std::size_t outputs, ResizeFilter filter);
};

}  // namespace memrt
