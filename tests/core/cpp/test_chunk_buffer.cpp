#include <doctest/doctest.h>

#include "chunk_buffer.hpp"
#include "support.hpp"

using namespace memrt;
using namespace memrt::test;

TEST_CASE("the newest chunk wins and is taken once") {
    ChunkBuffer buffer;
    CHECK(buffer.take() == nullptr);
    buffer.put(line(kHome, 0.1, 3), 1, 10, 1);
    buffer.put(line(kHome, 0.2, 5), 2, 20, 2);
    const TimedChunk* chunk = buffer.take();
    REQUIRE(chunk != nullptr);
    CHECK(chunk->rows().size() == 5);
    CHECK(chunk->rows()[4][0] == doctest::Approx(kHome[0] + 0.2));
    CHECK(chunk->t0_ns == 2);
    CHECK(chunk->dt_ns == 20);
    CHECK(chunk->revision == 2);
    CHECK(buffer.take() == nullptr);
    CHECK(buffer.replaced() == 1);
    CHECK_THROWS_AS(buffer.put({}, 0, 1, 0), std::invalid_argument);
    CHECK_THROWS_AS(buffer.put(line(kHome, 0.1, Seam::kMaxHorizon + 1), 0, 1, 0), std::invalid_argument);
}

TEST_CASE("producers and a consumer never mix chunks") {
    constexpr std::int64_t kChunks = 5'000 * kScale;
    constexpr int kProducers = 2;
    ChunkBuffer buffer;
    std::atomic<int> working{kProducers};
    Threads producers;
    for (int producer = 0; producer < kProducers; ++producer) {
        producers.run([&buffer, &working, producer] {
            std::vector<Action> chunk(16);
            for (std::int64_t i = 0; i < kChunks; ++i) {
                const std::int64_t number = i * kProducers + producer;
                for (Action& action : chunk) action.fill(static_cast<double>(number));
                buffer.put(chunk, number, number + 1, number);
            }
            --working;
        });
    }
    std::uint64_t taken = 0;
    int mixed = 0;
    std::array<std::int64_t, kProducers> newest{-1, -1};
    while (true) {
        const bool last_look = working == 0;
        const TimedChunk* chunk = buffer.take();
        if (chunk == nullptr) {
            if (last_look) break;
            std::this_thread::yield();
            continue;
        }
        ++taken;
        const std::int64_t number = chunk->revision;
        mixed += chunk->t0_ns != number || chunk->dt_ns != number + 1 || chunk->size != 16;
        for (const Action& action : chunk->rows()) {
            for (const double x : action) mixed += x != static_cast<double>(number);
        }
        auto& before = newest[static_cast<std::size_t>(number % kProducers)];
        mixed += number <= before;
        before = number;
    }
    CHECK(mixed == 0);
    CHECK(taken + buffer.replaced() == std::uint64_t{kChunks} * kProducers);
}
