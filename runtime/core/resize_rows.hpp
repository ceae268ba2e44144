#pragma once

#include <cstddef>
#include <cstdint>

#include "resize_weights.hpp"

namespace memrt {

/// \brief Bytes after a row that vector code may read (`from`) or overwrite (`to`).
inline constexpr std::size_t kRowSlack = 16;

/// \brief The two inner loops of a resize. Every implementation gives the same bytes.
struct ResizeRows {
    /// \brief Mixes the pixels of two rows into `weights.outputs` RGB pixels each. All rows have kRowSlack.
    void (*across)(const std::uint8_t* from_a, const std::uint8_t* from_b, std::uint8_t* to_a, std::uint8_t* to_b,
                   const ResizeWeights& weights);
    /// \brief Mixes `bytes` bytes of weights.count[output] rows into one row. No slack is used.
    void (*down)(const std::uint8_t* const* rows, std::uint8_t* to, std::size_t bytes, const ResizeWeights& weights,
                 std::size_t output);
};

/// \brief Plain C++.
extern const ResizeRows kPortableRows;

/// \brief The fastest that this processor runs.
const ResizeRows& fastest_rows();

}  // namespace memrt
