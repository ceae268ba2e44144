#include <doctest/doctest.h>

#include <cstdlib>
#include <fstream>
#include <limits>
#include <random>
#include <sstream>
#include <string>

#include "link_wire.hpp"
#include "support.hpp"

using namespace memrt;

namespace {

/// The bytes of a test vector in WIRE.md: what stands between "```hex NAME" and "```".
std::vector<std::byte> vector_of(const std::string& name) {
    std::ifstream page(MEMRT_WIRE_PAGE);
    REQUIRE(page.good());
    std::string line;
    while (std::getline(page, line) && line != "```hex " + name) {
    }
    std::vector<std::byte> bytes;
    while (std::getline(page, line) && line != "```") {
        std::istringstream words(line);
        for (unsigned byte = 0; words >> std::hex >> byte;) bytes.push_back(static_cast<std::byte>(byte));
    }
    REQUIRE(!bytes.empty());
    return bytes;
}

template <typename Field>
std::vector<std::byte> patched(std::vector<std::byte> message, std::size_t offset, Field value) {
    std::memcpy(message.data() + offset, &value, sizeof value);
    return message;
}

}  // namespace

TEST_CASE("the page's chunk reads as the page says, and is written the same") {
    const auto bytes = vector_of("chunk");
    wire::Chunk chunk;
    REQUIRE(wire::read(bytes, chunk) == wire::Reading::kOk);
    CHECK(chunk.header.horizon == 2);
    CHECK(chunk.header.space == wire::Space::kJointPosition);
    CHECK(chunk.header.session == 7);
    CHECK(chunk.header.sequence == 4);
    CHECK(chunk.header.sent_ns == 999'000'000);
    CHECK(chunk.header.deadline_ns == 1'050'000'000);
    CHECK(chunk.header.t0_ns == 1'000'000'000);
    CHECK(chunk.header.dt_ns == 50'000'000);
    CHECK(chunk.header.revision == 5);
    for (std::size_t row = 0; row < 2; ++row) {
        for (std::size_t i = 0; i < wire::kNumbers; ++i) {
            CHECK(chunk.actions[row][i] == static_cast<double>(8 * row + i) / 8.0);
        }
    }
    CHECK(wire::write(chunk) == bytes);
}

TEST_CASE("the page's state reads as the page says, and is written the same") {
    const auto bytes = vector_of("state");
    wire::State state;
    REQUIRE(wire::read(bytes, state) == wire::Reading::kOk);
    CHECK(state.mode == wire::Mode::kRunning);
    CHECK(state.outcome == wire::Outcome::kSuccess);
    CHECK(state.refused_in_a_row == 1);
    CHECK(state.session == 7);
    CHECK(state.sequence == 42);
    CHECK(state.sent_ns == 1'000'000'500);
    CHECK(state.deadline_ns == 1'500'000'500);
    CHECK(state.t_ns == 1'000'000'000);
    CHECK(state.remaining_ns == 800'000'000);
    CHECK(state.revision == 5);
    CHECK(state.proprioception == std::array<double, 8>{0.0, -0.5, 0.0, -2.0, 0.0, 1.5, 0.75, 1.0});
    const auto written = wire::write(state);
    CHECK(std::equal(written.begin(), written.end(), bytes.begin(), bytes.end()));
}

TEST_CASE("what the page forbids is not read") {
    const auto chunk_bytes = vector_of("chunk"), state_bytes = vector_of("state");
    wire::Chunk chunk;
    wire::State state;
    const auto chunk_reading = [&](const auto& bytes) { return wire::read(bytes, chunk); };
    const auto state_reading = [&](const auto& bytes) { return wire::read(bytes, state); };

    CHECK(chunk_reading(state_bytes) == wire::Reading::kMalformed);
    CHECK(state_reading(chunk_bytes) == wire::Reading::kMalformed);
    CHECK(chunk_reading(std::vector<std::byte>{}) == wire::Reading::kMalformed);
    CHECK(chunk_reading(std::vector<std::byte>(wire::kMaxBytes + 1)) == wire::Reading::kOversized);
    CHECK(chunk_reading(patched(chunk_bytes, 1, std::uint8_t{3})) == wire::Reading::kWrongVersion);
    CHECK(state_reading(patched(state_bytes, 1, std::uint8_t{1})) == wire::Reading::kWrongVersion);

    for (const std::uint16_t horizon : {0, 1, 3, 129, 65'535}) {
        CHECK(chunk_reading(patched(chunk_bytes, 2, horizon)) == wire::Reading::kMalformed);
    }
    CHECK(chunk_reading(patched(chunk_bytes, 4, std::uint8_t{3})) == wire::Reading::kMalformed);
    CHECK(chunk_reading(patched(chunk_bytes, 7, std::uint8_t{1})) == wire::Reading::kMalformed);
    for (const std::size_t number : {8, 16, 56}) {
        CHECK(chunk_reading(patched(chunk_bytes, number, wire::kMaxNumber + 1)) == wire::Reading::kMalformed);
        CHECK(state_reading(patched(state_bytes, number, wire::kMaxNumber + 1)) == wire::Reading::kMalformed);
    }
    for (const std::size_t time : {24, 32, 40}) {
        CHECK(chunk_reading(patched(chunk_bytes, time, -wire::kMaxTimeNs - 1)) == wire::Reading::kMalformed);
        CHECK(state_reading(patched(state_bytes, time, wire::kMaxTimeNs + 1)) == wire::Reading::kMalformed);
    }
    for (const std::int64_t dt_ns : {std::int64_t{0}, std::int64_t{-1}, wire::kMaxDtNs + 1}) {
        CHECK(chunk_reading(patched(chunk_bytes, 48, dt_ns)) == wire::Reading::kMalformed);
    }
    CHECK(state_reading(patched(state_bytes, 2, std::uint8_t{4})) == wire::Reading::kMalformed);
    CHECK(state_reading(patched(state_bytes, 3, std::uint8_t{3})) == wire::Reading::kMalformed);
    CHECK(state_reading(patched(state_bytes, 48, std::int64_t{-1})) == wire::Reading::kMalformed);
    CHECK(state_reading(patched(state_bytes, 120, std::numeric_limits<double>::quiet_NaN())) ==
          wire::Reading::kMalformed);
    const double nan = std::numeric_limits<double>::quiet_NaN();
    CHECK(chunk_reading(patched(chunk_bytes, 64, nan)) == wire::Reading::kOk);  // the robot's business
}

TEST_CASE("damaged messages are read whole or not at all") {
    const std::array originals{vector_of("chunk"), vector_of("state")};
    const char* asked = std::getenv("MEMRT_FUZZ");
    const long messages = asked != nullptr ? std::atol(asked) : 10'000L * test::kScale;
    std::mt19937_64 random(0);
    long read_whole = 0;
    for (long i = 0; i < messages; ++i) {
        auto bytes = originals[static_cast<std::size_t>(i % 2)];
        for (std::uint64_t times = 1 + random() % 3; times > 0; --times) {
            const std::size_t at = bytes.empty() ? 0 : random() % bytes.size();
            switch (random() % 4) {
                case 0:
                    bytes.resize(at);
                    break;
                case 1:
                    bytes.resize(bytes.size() + random() % 200, std::byte{0xff});
                    break;
                default:
                    if (!bytes.empty()) bytes[at] = static_cast<std::byte>(random());
            }
        }
        // On the heap and exactly as long, so that the address sanitizer sees every byte too far.
        const std::vector<std::byte> message(bytes.begin(), bytes.end());
        wire::Chunk chunk;
        wire::State state;
        if (wire::read(message, chunk) == wire::Reading::kOk) {
            ++read_whole;
            REQUIRE(wire::write(chunk) == message);
        }
        if (wire::read(message, state) == wire::Reading::kOk) {
            ++read_whole;
            const auto written = wire::write(state);
            REQUIRE(std::equal(written.begin(), written.end(), message.begin(), message.end()));
        }
    }
    CHECK(read_whole > messages / 50);
    CHECK(read_whole < messages - messages / 50);
}
