#include <doctest/doctest.h>

#include "seqlock.hpp"
#include "support.hpp"

using namespace memrt;
using namespace memrt::test;

namespace {

struct Value {
    std::array<std::uint64_t, 37> same{};
    bool odd = false;  // so that the size is no multiple of a word
};

}  // namespace

TEST_CASE("a reader sees one whole value, and never an older one than before") {
    constexpr std::uint64_t kWrites = 20'000 * kScale;
    Seqlock<Value> lock;
    std::atomic<int> torn{0};
    std::atomic<int> backwards{0};
    {
        Threads threads;
        for (int reader = 0; reader < 2; ++reader) {
            threads.run([&] {
                std::uint64_t newest = 0;
                while (newest < kWrites) {
                    const Value value = lock.load();
                    for (const std::uint64_t word : value.same) torn += word != value.same[0];
                    torn += value.odd != (value.same[0] % 2 == 1);
                    backwards += value.same[0] < newest;
                    newest = value.same[0];
                }
            });
        }
        Value value;
        for (std::uint64_t i = 1; i <= kWrites; ++i) {
            value.same.fill(i);
            value.odd = i % 2 == 1;
            lock.store(value);
        }
    }
    CHECK(torn == 0);
    CHECK(backwards == 0);
}
