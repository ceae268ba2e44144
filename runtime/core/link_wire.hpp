#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

/// \file
/// \brief The repeated messages of the robot link, for nodes and clients in C++. `robot_io/link/WIRE.md` describes
/// them.
///
/// Needs nothing else of memrt: copy it. The same layout in Python is `robot_io/link/streams.py`; tests hold both to
/// the bytes on that page. Reading never throws and never reads outside the message.

namespace memrt::wire {

static_assert(std::endian::native == std::endian::little, "the structs are little-endian; a big-endian host must swap");

inline constexpr std::uint8_t kVersion = 2;
inline constexpr std::uint8_t kChunkKind = 1;
inline constexpr std::uint8_t kStateKind = 2;
inline constexpr std::size_t kNumbers = 8;  ///< Of an action, and of proprioception.
inline constexpr std::size_t kMaxHorizon = 128;
inline constexpr std::int64_t kMaxTimeNs = std::int64_t{1} << 62;
inline constexpr std::int64_t kMaxDtNs = 10'000'000'000;
inline constexpr std::uint64_t kMaxNumber = (std::uint64_t{1} << 63) - 1;

enum class Space : std::uint8_t { kJointPosition = 0, kJointVelocity = 1, kCartesianPose = 2 };
enum class Mode : std::uint8_t { kDisarmed = 0, kRunning = 1, kStopped = 2, kFault = 3 };
enum class Outcome : std::uint8_t { kRunning = 0, kSuccess = 1, kFailure = 2 };

/// \brief What became of reading a message.
enum class Reading { kOk, kOversized, kMalformed, kWrongVersion };

#pragma pack(push, 1)

/// \brief The first 64 bytes of a chunk; `horizon` actions of 64 bytes follow. Times are the node's CLOCK_MONOTONIC.
struct alignas(8) ChunkHeader {
    std::uint8_t kind = kChunkKind;
    std::uint8_t version = kVersion;
    std::uint16_t horizon = 0;
    Space space = Space::kJointPosition;
    std::array<std::uint8_t, 3> reserved{};
    std::uint64_t session = 0;
    std::uint64_t sequence = 0;
    std::int64_t sent_ns = 0;
    std::int64_t deadline_ns = 0;
    std::int64_t t0_ns = 0;
    std::int64_t dt_ns = 0;
    std::uint64_t revision = 0;
};

/// \brief Where the robot is and what it does with the chunks.
struct alignas(8) State {
    std::uint8_t kind = kStateKind;
    std::uint8_t version = kVersion;
    Mode mode = Mode::kDisarmed;
    Outcome outcome = Outcome::kRunning;
    std::uint32_t refused_in_a_row = 0;
    std::uint64_t session = 0;
    std::uint64_t sequence = 0;
    std::int64_t sent_ns = 0;
    std::int64_t deadline_ns = 0;
    std::int64_t t_ns = 0;
    std::int64_t remaining_ns = 0;
    std::uint64_t revision = 0;
    std::array<double, kNumbers> proprioception{};  ///< Seven joints [rad], gripper opening (0..1).
};

#pragma pack(pop)

static_assert(offsetof(ChunkHeader, kind) == 0);
static_assert(offsetof(ChunkHeader, version) == 1);
static_assert(offsetof(ChunkHeader, horizon) == 2);
static_assert(offsetof(ChunkHeader, space) == 4);
static_assert(offsetof(ChunkHeader, reserved) == 5);
static_assert(offsetof(ChunkHeader, session) == 8);
static_assert(offsetof(ChunkHeader, sequence) == 16);
static_assert(offsetof(ChunkHeader, sent_ns) == 24);
static_assert(offsetof(ChunkHeader, deadline_ns) == 32);
static_assert(offsetof(ChunkHeader, t0_ns) == 40);
static_assert(offsetof(ChunkHeader, dt_ns) == 48);
static_assert(offsetof(ChunkHeader, revision) == 56);
static_assert(sizeof(ChunkHeader) == 64);

static_assert(offsetof(State, kind) == 0);
static_assert(offsetof(State, version) == 1);
static_assert(offsetof(State, mode) == 2);
static_assert(offsetof(State, outcome) == 3);
static_assert(offsetof(State, refused_in_a_row) == 4);
static_assert(offsetof(State, session) == 8);
static_assert(offsetof(State, sequence) == 16);
static_assert(offsetof(State, sent_ns) == 24);
static_assert(offsetof(State, deadline_ns) == 32);
static_assert(offsetof(State, t_ns) == 40);
static_assert(offsetof(State, remaining_ns) == 48);
static_assert(offsetof(State, revision) == 56);
static_assert(offsetof(State, proprioception) == 64);
static_assert(sizeof(State) == 128);

using Action = std::array<double, kNumbers>;
inline constexpr std::size_t kMaxBytes = sizeof(ChunkHeader) + kMaxHorizon * sizeof(Action);

/// \brief A chunk of fixed size: the first `header.horizon` actions count.
struct Chunk {
    ChunkHeader header{};
    std::array<Action, kMaxHorizon> actions{};
};

namespace detail {

inline bool is_time(std::int64_t t_ns) {
    return -kMaxTimeNs <= t_ns && t_ns <= kMaxTimeNs;
}

inline bool is_number(std::uint64_t number) {
    return number <= kMaxNumber;
}

/// Size, kind and version: what must be right before anything else is looked at.
inline Reading begins_well(std::span<const std::byte> message, std::uint8_t kind) {
    if (message.size() > kMaxBytes) return Reading::kOversized;
    if (message.size() < 2 || std::to_integer<std::uint8_t>(message[0]) != kind) return Reading::kMalformed;
    return std::to_integer<std::uint8_t>(message[1]) == kVersion ? Reading::kOk : Reading::kWrongVersion;
}

}  // namespace detail

/// \brief Reads a chunk. `chunk` is whole only after kOk; its actions may have any values, which the robot must judge.
inline Reading read(std::span<const std::byte> message, Chunk& chunk) {
    const Reading beginning = detail::begins_well(message, kChunkKind);
    if (beginning != Reading::kOk) return beginning;
    if (message.size() < sizeof(ChunkHeader)) return Reading::kMalformed;
    ChunkHeader& header = chunk.header;
    std::memcpy(&header, message.data(), sizeof header);
    const bool sound = header.horizon >= 1 && header.horizon <= kMaxHorizon &&
                       message.size() == sizeof header + header.horizon * sizeof(Action) &&
                       header.space <= Space::kCartesianPose && header.reserved == std::array<std::uint8_t, 3>{} &&
                       detail::is_number(header.session) && detail::is_number(header.sequence) &&
                       detail::is_number(header.revision) && detail::is_time(header.sent_ns) &&
                       detail::is_time(header.deadline_ns) && detail::is_time(header.t0_ns) && header.dt_ns > 0 &&
                       header.dt_ns <= kMaxDtNs;
    if (!sound) return Reading::kMalformed;
    std::memcpy(chunk.actions.data(), message.data() + sizeof header, header.horizon * sizeof(Action));
    return Reading::kOk;
}

/// \brief Reads a state. `state` is whole only after kOk; its proprioception is then finite.
inline Reading read(std::span<const std::byte> message, State& state) {
    const Reading beginning = detail::begins_well(message, kStateKind);
    if (beginning != Reading::kOk) return beginning;
    if (message.size() != sizeof state) return Reading::kMalformed;
    std::memcpy(&state, message.data(), sizeof state);
    bool sound = state.mode <= Mode::kFault && state.outcome <= Outcome::kFailure && detail::is_number(state.session) &&
                 detail::is_number(state.sequence) && detail::is_number(state.revision) &&
                 detail::is_time(state.sent_ns) && detail::is_time(state.deadline_ns) && detail::is_time(state.t_ns) &&
                 detail::is_time(state.remaining_ns) && state.remaining_ns >= 0;
    for (std::size_t i = 0; i < kNumbers; ++i) sound = sound && std::isfinite(state.proprioception[i]);
    return sound ? Reading::kOk : Reading::kMalformed;
}

/// \brief The bytes of a chunk. `header.horizon` must be 1 to kMaxHorizon.
inline std::vector<std::byte> write(const Chunk& chunk) {
    std::vector<std::byte> message(sizeof(ChunkHeader) + chunk.header.horizon * sizeof(Action));
    std::memcpy(message.data(), &chunk.header, sizeof(ChunkHeader));
    std::memcpy(message.data() + sizeof(ChunkHeader), chunk.actions.data(), chunk.header.horizon * sizeof(Action));
    return message;
}

/// \brief The bytes of a state.
inline std::array<std::byte, sizeof(State)> write(const State& state) {
    return std::bit_cast<std::array<std::byte, sizeof(State)>>(state);
}

}  // namespace memrt::wire
