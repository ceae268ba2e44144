#include "resize_weights.hpp"

#include <algorithm>
#include <cmath>

namespace memrt {

namespace {

// Pillow's Resample.c, operation for operation: the same doubles round to the same fixed-point weights.
double bilinear(double x) {
    x = std::fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

double bicubic(double x) {
    constexpr double a = -0.5;
    x = std::fabs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

std::int32_t fixed_point(double weight) {
    constexpr double kOne = 1 << ResizeWeights::kBits;
    return static_cast<std::int32_t>(weight < 0 ? -0.5 + weight * kOne : 0.5 + weight * kOne);
}

}  // namespace

ResizeWeights::ResizeWeights(std::size_t inputs, std::size_t outputs, ResizeFilter filter) : outputs(outputs), most(0) {
    const auto weigh = filter == ResizeFilter::kBilinear ? bilinear : bicubic;
    const double scale = static_cast<double>(inputs) / static_cast<double>(outputs);
    const double widening = std::max(scale, 1.0);
    const double support = (filter == ResizeFilter::kBilinear ? 1.0 : 2.0) * widening;
    const double shrink = 1.0 / widening;
    const std::size_t bound = std::min(inputs, static_cast<std::size_t>(std::ceil(support)) * 2 + 1);
    padded = (bound + kGroup - 1) / kGroup * kGroup;

    const std::size_t rows = outputs + kGroup - 1;
    first.assign(rows, 0);
    count.assign(rows, 0);
    whole.assign(rows * padded, 0);
    std::vector<double> weights(bound);
    for (std::size_t output = 0; output < outputs; ++output) {
        const double center = (static_cast<double>(output) + 0.5) * scale;
        const auto begin = static_cast<std::ptrdiff_t>(center - support + 0.5);
        const auto end = static_cast<std::ptrdiff_t>(center + support + 0.5);
        const std::size_t from = begin < 0 ? 0 : static_cast<std::size_t>(begin);
        const std::size_t taps = std::min(static_cast<std::size_t>(end), inputs) - from;
        double sum = 0.0;
        for (std::size_t tap = 0; tap < taps; ++tap) {
            weights[tap] = weigh((static_cast<double>(tap + from) - center + 0.5) * shrink);
            sum += weights[tap];
        }
        for (std::size_t tap = 0; tap < taps; ++tap) {
            whole[output * padded + tap] = fixed_point(sum != 0.0 ? weights[tap] / sum : weights[tap]);
        }
        first[output] = from;
        count[output] = taps;
        most = std::max(most, taps);
    }

    high.resize(whole.size());
    low.resize(whole.size());
    for (std::size_t index = 0; index < whole.size(); ++index) {
        high[index] = static_cast<std::int16_t>(whole[index] >> kLowBits);
        low[index] = static_cast<std::int16_t>(whole[index] & ((1 << kLowBits) - 1));
    }
}

}  // namespace memrt
