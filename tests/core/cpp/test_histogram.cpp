#include <doctest/doctest.h>

#include <algorithm>

#include "histogram.hpp"
#include "support.hpp"

using namespace memrt;
using namespace memrt::test;

TEST_CASE("a quantile is not below the sample of its rank, and within an eighth above it") {
    std::mt19937_64 random(1);
    for (int round = 0; round < 20; ++round) {
        Histogram histogram;
        CHECK(histogram.quantile(0.5) == 0);
        std::vector<std::uint64_t> samples(1 + random() % 500);
        for (auto& sample : samples) {
            sample = random() >> (random() % 63 + 1);
            histogram.add(static_cast<std::int64_t>(sample));
        }
        std::sort(samples.begin(), samples.end());
        CHECK(histogram.count() == samples.size());
        CHECK(histogram.max() == samples.back());
        for (const double fraction : {0.01, 0.5, 0.99, 1.0}) {
            const double rank = fraction * static_cast<double>(samples.size());
            const auto place = static_cast<std::size_t>(std::max(0.0, std::ceil(rank) - 1.0));
            const std::uint64_t found = histogram.quantile(fraction);
            CHECK(found >= samples[place]);
            CHECK(found - samples[place] <= samples[place] / 8);
        }
    }
}
