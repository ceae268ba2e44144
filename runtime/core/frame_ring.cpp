#include "frame_ring.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>

namespace memrt {

namespace {

constexpr std::uint64_t kMagic = 0x31676e6952746d4dULL;  // "MmtRing1": layout of this file
constexpr std::uint32_t kNone = 0xffffffffU;
constexpr std::size_t kPage = 4096;
constexpr int kWriterByte = static_cast<int>(FrameRing::kMaxReaders);  // lock bytes 0..15 are the readers'
constexpr int kPinAttempts = 64;

std::runtime_error refused(const std::string& name, const std::string& why) {
    return std::runtime_error("frame ring '" + name + "': " + why);
}

std::runtime_error refused_by_system(const std::string& name, const char* call) {
    return refused(name, std::string(call) + ": " + std::strerror(errno));
}

std::string path_of(const std::string& name) {
    if (name.empty() || name.size() > 200 || name.find('/') != std::string::npos) {
        throw std::invalid_argument("frame ring name: expected 1 to 200 characters without '/'");
    }
    return "/" + name;
}

// Locks of the open file description: they belong to this opening of the ring, not to the whole process, and end with
// it. True when the byte is now as asked for.
bool set_lock(int fd, int byte, short type) {
    struct flock lock{};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = byte;
    lock.l_len = 1;
    return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

bool lock_byte(int fd, int byte) {
    return set_lock(fd, byte, F_WRLCK);
}
void unlock_byte(int fd, int byte) {
    set_lock(fd, byte, F_UNLCK);
}

std::size_t round_up(std::size_t bytes) {
    return (bytes + kPage - 1) / kPage * kPage;
}

}  // namespace

struct FrameRing::Slot {
    std::atomic<std::uint64_t> sequence{0};  // odd while the writer is at it
    std::uint64_t index = 0;
    std::int64_t t_ns = 0;
};

struct FrameRing::Header {
    std::atomic<std::uint64_t> magic{0};  // written last
    std::uint32_t slots = 0;
    FrameShape shape;
    std::atomic<std::uint32_t> newest{kNone};
    std::atomic<std::uint64_t> written{0};
    std::atomic<std::uint64_t> dropped{0};
    std::array<Slot, kMaxSlots> slot;
    std::array<std::array<std::atomic<std::uint32_t>, kMaxSlots>, kMaxReaders> pins;
};

static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<std::uint32_t>::is_always_lock_free,
              "atomics in shared memory must not need a lock of the process");

void FrameRing::map(std::size_t bytes) {
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
    if (memory == MAP_FAILED) throw refused_by_system(name_, "mmap");
    memory_ = static_cast<std::byte*>(memory);
    mapped_ = bytes;
    pixels_ = memory_ + round_up(sizeof(Header));
}

std::shared_ptr<FrameRing> FrameRing::create(const std::string& name, std::uint32_t slots, FrameShape shape) {
    const std::string path = path_of(name);
    if (slots < kMinSlots || slots > kMaxSlots) throw std::invalid_argument("frame ring slots: expected 3 to 64");
    constexpr std::uint32_t kSide = 16384;
    if (shape.height < 1 || shape.height > kSide || shape.width < 1 || shape.width > kSide || shape.channels < 1 ||
        shape.channels > 4) {
        throw std::invalid_argument("frame ring shape: expected up to 16384 x 16384 pixels of 1 to 4 channels");
    }
    const std::size_t stride = round_up(shape.bytes());
    if (stride * slots > kMaxBytes) throw std::invalid_argument("frame ring: expected at most 1 GiB of frames");

    // A leftover of a writer that died has no lock on its writer byte.
    if (const int old = shm_open(path.c_str(), O_RDWR | O_CLOEXEC, 0600); old >= 0) {
        const bool leftover = lock_byte(old, kWriterByte);
        if (leftover) shm_unlink(path.c_str());
        ::close(old);
        if (!leftover) throw refused(name, "has a writer already");
    }
    const int fd = shm_open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        if (errno == EEXIST) throw refused(name, "has a writer already");
        throw refused_by_system(name, "shm_open");
    }
    const std::shared_ptr<FrameRing> ring(new FrameRing(name, fd));
    ring->linked_ = true;
    if (!lock_byte(fd, kWriterByte)) throw refused(name, "has a writer already");
    const std::size_t bytes = round_up(sizeof(Header)) + stride * slots;
    // Reserved now: a full /dev/shm is refused here instead of killing the writer at some later frame.
    if (const int error = posix_fallocate(fd, 0, static_cast<off_t>(bytes)); error != 0) {
        errno = error;
        throw refused_by_system(name, "posix_fallocate");
    }
    ring->map(bytes);
    ring->header_ = new (ring->memory_) Header();
    ring->header_->slots = slots;
    ring->header_->shape = shape;
    ring->slots_ = slots;
    ring->shape_ = shape;
    ring->stride_ = stride;
    ring->header_->magic.store(kMagic, std::memory_order_release);  // partner: the acquire in open()
    return ring;
}

std::shared_ptr<FrameRing> FrameRing::open(const std::string& name) {
    const int fd = shm_open(path_of(name).c_str(), O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) throw refused_by_system(name, "shm_open");
    const std::shared_ptr<FrameRing> ring(new FrameRing(name, fd));
    struct stat info{};
    if (fstat(fd, &info) != 0) throw refused_by_system(name, "fstat");
    const auto bytes = static_cast<std::size_t>(info.st_size);
    if (bytes < round_up(sizeof(Header))) throw refused(name, "not a frame ring, or not ready yet");
    ring->map(bytes);
    ring->header_ = std::launder(reinterpret_cast<Header*>(ring->memory_));
    Header& header = *ring->header_;
    // Acquire: partner of the release in create(), the rest of the header is there.
    if (header.magic.load(std::memory_order_acquire) != kMagic) {
        throw refused(name, "not a frame ring of this version, or not ready yet");
    }
    ring->slots_ = header.slots;
    ring->shape_ = header.shape;
    ring->stride_ = round_up(ring->shape_.bytes());
    if (ring->slots_ < kMinSlots || ring->slots_ > kMaxSlots || ring->stride_ == 0 || ring->stride_ > kMaxBytes ||
        bytes != round_up(sizeof(Header)) + ring->stride_ * ring->slots_) {
        throw refused(name, "its size does not fit its header");
    }
    for (int row = 0; row < static_cast<int>(kMaxReaders); ++row) {
        if (!lock_byte(fd, row)) continue;
        // Whoever had this row before is gone; its pins, if it died with some, hold nothing any more.
        for (auto& pin : header.pins[static_cast<std::size_t>(row)]) pin.store(0, std::memory_order_seq_cst);
        ring->reader_ = row;
        return ring;
    }
    throw refused(name, "has 16 readers already");
}

FrameRing::~FrameRing() {
    unlink();
    if (memory_ != nullptr) munmap(memory_, mapped_);
    if (fd_ >= 0) ::close(fd_);  // drops the lock, and with it the row in the pin table
}

void FrameRing::unlink() {
    if (linked_) shm_unlink(path_of(name_).c_str());
    linked_ = false;
}

std::uint64_t FrameRing::written() const {
    return header_->written.load(std::memory_order_relaxed);
}
std::uint64_t FrameRing::dropped() const {
    return header_->dropped.load(std::memory_order_relaxed);
}

bool FrameRing::pinned(std::uint32_t slot) const {
    for (const auto& row : header_->pins) {
        // Sequentially consistent: partner of the pin in pin_newest(), see the class comment. It also orders this
        // writer's stores after a reader's last look at the slot (release in Borrowed::release()).
        if (row[slot].load(std::memory_order_seq_cst) != 0) return true;
    }
    return false;
}

void FrameRing::clear_pins_of_the_dead() {
    for (int row = 0; row < static_cast<int>(kMaxReaders); ++row) {
        // Held while clearing, so that no new reader moves in and pins something in the meantime.
        if (!lock_byte(fd_, row)) continue;
        for (auto& pin : header_->pins[static_cast<std::size_t>(row)]) pin.store(0, std::memory_order_seq_cst);
        unlock_byte(fd_, row);
    }
}

std::optional<std::uint32_t> FrameRing::claim(std::uint32_t newest) {
    for (std::uint32_t step = 1; step <= slots_; ++step) {
        const std::uint32_t slot = newest == kNone ? step - 1 : (newest + step) % slots_;
        if (slot == newest) continue;
        auto& sequence = header_->slot[slot].sequence;
        const std::uint64_t before = sequence.load(std::memory_order_relaxed);  // only this writer changes it
        sequence.store(before + 1, std::memory_order_seq_cst);                  // partner: the load in pin_newest()
        if (!pinned(slot)) return slot;
        sequence.store(before, std::memory_order_seq_cst);  // nothing was written: the old frame stands
    }
    return std::nullopt;
}

bool FrameRing::write(const std::uint8_t* pixels, std::uint64_t index, std::int64_t t_ns) {
    if (!writer()) throw refused(name_, "opened for reading");
    const std::uint32_t newest = header_->newest.load(std::memory_order_relaxed);  // only this writer changes it
    std::optional<std::uint32_t> slot = claim(newest);
    if (!slot) {
        clear_pins_of_the_dead();
        slot = claim(newest);
    }
    if (!slot) {
        header_->dropped.fetch_add(1, std::memory_order_relaxed);
        return false;
    }
    Slot& meta = header_->slot[*slot];
    std::memcpy(pixels_ + stride_ * *slot, pixels, shape_.bytes());
    meta.index = index;
    meta.t_ns = t_ns;
    // Sequentially consistent, hence a release: partner of the loads of `sequence` and `newest` in pin_newest().
    meta.sequence.store(meta.sequence.load(std::memory_order_relaxed) + 1, std::memory_order_seq_cst);
    header_->newest.store(*slot, std::memory_order_release);
    header_->written.fetch_add(1, std::memory_order_relaxed);
    return true;
}

bool FrameRing::pin_newest(std::uint32_t& slot) {
    for (int attempt = 0; attempt < kPinAttempts; ++attempt) {
        slot = header_->newest.load(std::memory_order_acquire);  // partner: the release in write()
        if (slot >= slots_) return false;
        auto& pin = header_->pins[static_cast<std::size_t>(reader_)][slot];
        pin.fetch_add(1, std::memory_order_seq_cst);  // partner: the load in pinned()
        const std::uint64_t sequence = header_->slot[slot].sequence.load(std::memory_order_seq_cst);
        if ((sequence & 1) == 0) return true;
        // The writer went round the whole ring between the two loads, and is about to give us something newer.
        pin.fetch_sub(1, std::memory_order_release);
    }
    return false;
}

std::unique_ptr<FrameRing::Borrowed> FrameRing::borrow(const std::shared_ptr<FrameRing>& ring) {
    if (ring->writer()) throw refused(ring->name_, "opened for writing");
    std::uint32_t slot = kNone;
    if (!ring->pin_newest(slot)) return nullptr;
    return std::make_unique<Borrowed>(ring, slot);
}

FrameRing::Borrowed::Borrowed(std::shared_ptr<FrameRing> ring, std::uint32_t slot)
    : ring_(std::move(ring)),
      slot_(slot),
      index_(ring_->header_->slot[slot].index),
      t_ns_(ring_->header_->slot[slot].t_ns) {}

const std::uint8_t* FrameRing::Borrowed::data() const {
    return reinterpret_cast<const std::uint8_t*>(ring_->pixels_ + ring_->stride_ * slot_);
}

void FrameRing::Borrowed::release() {
    if (released_.exchange(true, std::memory_order_relaxed)) return;
    // Release: partner of the load in pinned(): every look at the pixels came before.
    ring_->header_->pins[static_cast<std::size_t>(ring_->reader_)][slot_].fetch_sub(1, std::memory_order_release);
}

}  // namespace memrt
