#include <doctest/doctest.h>
#include <unistd.h>

#include <string>

#include "frame_ring.hpp"
#include "support.hpp"

using namespace memrt;
using namespace memrt::test;

namespace {

constexpr FrameShape kShape{8, 8, 1};

std::string fresh_name() {
    static int count = 0;
    return "memrt-cpp-test-" + std::to_string(getpid()) + "-" + std::to_string(++count);
}

}  // namespace

TEST_CASE("a borrowed frame outlives both ends and moves with its owner") {
    const std::string name = fresh_name();
    auto writer = FrameRing::create(name, 4, kShape);
    auto reader = FrameRing::open(name);
    CHECK_FALSE(FrameRing::borrow(reader).has_value());
    const std::vector<std::uint8_t> pixels(kShape.bytes(), 7);
    CHECK(writer->write(pixels.data(), 1, 100));
    CHECK(writer->write(pixels.data(), 2, 200));
    CHECK_FALSE(FrameRing::borrow(reader, 99).has_value());
    std::optional<FrameRing::Borrowed> borrowed = FrameRing::borrow(reader, 199);
    REQUIRE(borrowed.has_value());
    FrameRing::Borrowed frame(std::move(*borrowed));
    CHECK(borrowed->released());
    borrowed.reset();
    writer.reset();
    reader.reset();
    CHECK(frame.index() == 1);
    CHECK(frame.t_ns() == 100);
    CHECK(frame.data()[kShape.bytes() - 1] == 7);
    frame.release();
    frame.release();
    CHECK(frame.released());
}

TEST_CASE("names and roles are checked") {
    const std::string name = fresh_name();
    const auto writer = FrameRing::create(name, 3, kShape);
    CHECK_THROWS_AS(FrameRing::create(name, 3, kShape), std::runtime_error);
    CHECK_THROWS_AS(FrameRing::open(name + "-other"), std::runtime_error);
    CHECK_THROWS_AS(FrameRing::create("a/b", 3, kShape), std::invalid_argument);
    CHECK_THROWS_AS(FrameRing::create(name + "-two", 2, kShape), std::invalid_argument);
    CHECK_THROWS_AS(FrameRing::create(name + "-257", 257, kShape), std::invalid_argument);
    const auto reader = FrameRing::open(name);
    const std::vector<std::uint8_t> pixels(kShape.bytes());
    CHECK_THROWS_AS(reader->write(pixels.data(), 0, 0), std::runtime_error);
    CHECK_THROWS_AS(FrameRing::borrow(writer), std::runtime_error);
}

TEST_CASE("readers that come and go while frames are written lose nothing and hold nothing") {
    const std::string name = fresh_name();
    const auto writer = FrameRing::create(name, 3, kShape);
    std::atomic<int> wrong{0};
    {
        Threads readers;
        for (int reader = 0; reader < 2; ++reader) {
            readers.run([&] {
                for (int turn = 0; turn < 50 * kScale; ++turn) {
                    const auto ring = FrameRing::open(name);
                    const auto frame = FrameRing::borrow(ring);
                    if (frame) wrong += frame->data()[0] != static_cast<std::uint8_t>(frame->index());
                }
            });
        }
        for (std::uint64_t index = 0; index < 500 * std::uint64_t{kScale}; ++index) {
            const std::vector<std::uint8_t> pixels(kShape.bytes(), static_cast<std::uint8_t>(index));
            writer->write(pixels.data(), index, static_cast<std::int64_t>(index));
        }
    }
    CHECK(wrong == 0);
    const std::uint64_t dropped = writer->dropped();
    const std::vector<std::uint8_t> pixels(kShape.bytes());
    for (int i = 0; i < 3; ++i) CHECK(writer->write(pixels.data(), 0, 0));
    CHECK(writer->dropped() == dropped);
}
