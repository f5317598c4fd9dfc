// A stand-in for NVIDIA's driver library, for tests: the entry points that cudarc calls, devices that are this host's
// memory, and kernels that are the project's own source compiled for the host. It executes no PTX and nothing on a
// GPU.
//
// Settings, all by environment: ISOTHERM_EMULATED_DEVICES (2), _MEMORY (bytes of each, 512 MiB), _CAPABILITY (80),
// _SEED (0, the order of threads and blocks), _PEER (1), _LOSS (DEVICE:LAUNCHES, after which a device fails for good).
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>

#include "block.h"
#include "memory.h"
#include "stream.h"

using namespace emulated;

namespace {

enum Code {
    success = 0, invalid_value = 1, out_of_memory = 2, not_initialised = 3, invalid_device = 101, invalid_image = 200,
    invalid_context = 201, invalid_handle = 400, not_found = 500, not_ready = 600, illegal_address = 700,
    already_enabled = 704, not_enabled = 705, illegal_instruction = 715, misaligned_address = 716, launch_failed = 719,
    not_supported = 801, capture_unsupported = 900,
};

uint64_t setting(const char* name, uint64_t otherwise) {
    const char* text = std::getenv(name);
    return text && *text ? std::strtoull(text, nullptr, 10) : otherwise;
}

struct Device {
    unsigned number;
    Memory memory;
    std::atomic<int> failed{0};
    std::atomic<uint64_t> launches{0};
    // After how many launches it fails for good; none when it never does.
    uint64_t lost_after = UINT64_MAX;
    std::mutex lock;
    std::vector<Stream*> streams;
    std::unique_ptr<Stream> standard;
    std::atomic<uint32_t> peers{0};

    explicit Device(unsigned number)
        : number(number), memory(number, setting("ISOTHERM_EMULATED_MEMORY", uint64_t{512} << 20)) {
        if (const char* loss = std::getenv("ISOTHERM_EMULATED_LOSS")) {
            char* rest = nullptr;
            if (std::strtoull(loss, &rest, 10) == number && *rest == ':') lost_after = std::strtoull(rest + 1, nullptr, 10);
        }
    }

    Stream* stream(void* handle) {
        if (handle && handle != reinterpret_cast<void*>(1) && handle != reinterpret_cast<void*>(2)) {
            return static_cast<Stream*>(handle);
        }
        std::lock_guard<std::mutex> hold(lock);
        if (!standard) {
            standard.reset(new Stream(failed, number + 1));
            streams.push_back(standard.get());
        }
        return standard.get();
    }

    int finish() {
        std::vector<Stream*> all;
        {
            std::lock_guard<std::mutex> hold(lock);
            all = streams;
        }
        for (Stream* one : all) one->finish();
        return failed;
    }
};

struct Image { std::string text; };

std::vector<Device*>& devices() {
    static std::vector<Device*>* all = [] {
        auto* made = new std::vector<Device*>;
        const unsigned count = static_cast<unsigned>(setting("ISOTHERM_EMULATED_DEVICES", 2));
        for (unsigned i = 0; i < count && i < 16; i++) made->push_back(new Device(i));
        return made;
    }();
    return *all;
}

std::atomic<bool> initialised{false};
thread_local Device* context = nullptr;
// Host memory that copies may use after their call has returned.
std::mutex pinned_lock;
std::map<uintptr_t, std::size_t> pinned;
// Where copies begin to read it that are not done.
std::multiset<uintptr_t> pinned_reads;

bool is_pinned(const void* at, std::size_t bytes) {
    std::lock_guard<std::mutex> hold(pinned_lock);
    auto after = pinned.upper_bound(reinterpret_cast<uintptr_t>(at));
    if (after == pinned.begin()) return false;
    const auto& [start, size] = *--after;
    return reinterpret_cast<uintptr_t>(at) - start + bytes <= size;
}

int complain(const char* what, const std::string& detail, int code) {
    std::fprintf(stderr, "host-emulated driver: %s: %s\n", what, detail.c_str());
    return code;
}

// The current context's device, or why there is none to use.
int usable(Device*& device) {
    if (!initialised) return not_initialised;
    if (!context) return invalid_context;
    device = context;
    return device->failed;
}

Device* owner(uintptr_t address) {
    for (Device* device : devices()) {
        if (device->memory.owns(address)) return device;
    }
    return nullptr;
}

int queue(Device* device, void* handle, Work work) {
    Stream* stream = device->stream(handle);
    Work guarded = [device, work = std::move(work)] { return device->failed ? int{success} : work(); };
    if (stream->recording) {
        stream->recording->works.push_back(std::move(guarded));
    } else {
        stream->put(std::move(guarded));
    }
    return success;
}

int check_range(Device* device, uintptr_t at, std::size_t bytes, const char* what) {
    if (device->memory.holds(at, bytes)) return success;
    Device* other = owner(at);
    if (other && other != device) return complain(what, "an address of another device", invalid_value);
    return complain(what, "bytes outside every allocation", invalid_value);
}

// A copy in a stream, after which the host's memory may be used again only when it was pinned.
int copy(void* handle, void* to, const void* from, std::size_t bytes, bool host_reads, bool host_writes) {
    Device* device;
    if (int code = usable(device)) return code;
    const auto target = reinterpret_cast<uintptr_t>(to), source = reinterpret_cast<uintptr_t>(from);
    if (!host_writes) if (int code = check_range(device, target, bytes, "copy to a device")) return code;
    if (!host_reads) if (int code = check_range(device, source, bytes, "copy from a device")) return code;
    const bool is_recording = device->stream(handle)->recording != nullptr;
    if (host_reads && !is_pinned(from, bytes)) {
        if (is_recording) return capture_unsupported;
        std::string kept(static_cast<const char*>(from), bytes);
        return queue(device, handle, [to, kept = std::move(kept)] {
            std::memcpy(to, kept.data(), kept.size());
            return int{success};
        });
    }
    if (host_writes && !is_pinned(to, bytes) && is_recording) return capture_unsupported;
    if (host_reads && !is_recording) {
        std::lock_guard<std::mutex> hold(pinned_lock);
        pinned_reads.insert(source);
    }
    queue(device, handle, [to, from, bytes, counted = host_reads && !is_recording] {
        std::memmove(to, from, bytes);
        if (counted) {
            std::lock_guard<std::mutex> hold(pinned_lock);
            pinned_reads.erase(pinned_reads.find(reinterpret_cast<uintptr_t>(from)));
        }
        return int{success};
    });
    if (host_writes && !is_pinned(to, bytes)) device->stream(handle)->finish();
    return device->failed;
}

int code_of(Fault fault) {
    switch (fault) {
        case Fault::none: return success;
        case Fault::illegal_address: return illegal_address;
        case Fault::misaligned_address: return misaligned_address;
        default: return launch_failed;
    }
}

// A launch whose arguments are kept, as they are read when it is asked for.
Work launch(Device* device, const Kernel* kernel, Index grid, Index block, void** parameters) {
    std::vector<uint64_t> values;
    for (const char* kind = kernel->kinds; *kind; kind++) {
        uint64_t value = 0;
        std::memcpy(&value, parameters[kind - kernel->kinds], *kind == 'w' ? 4 : 8);
        values.push_back(value);
    }
    static const uint64_t seed = setting("ISOTHERM_EMULATED_SEED", 0);
    return [device, kernel, grid, block, values]() mutable {
        const uint64_t number = device->launches++;
        if (number >= device->lost_after) return int{launch_failed};
        std::vector<void*> arguments;
        for (std::size_t i = 0; i < values.size(); i++) {
            arguments.push_back(&values[i]);
            if (kernel->kinds[i] != 'p' || !values[i]) continue;
            if (device->memory.holds(values[i], 1)) continue;
            Device* other = owner(values[i]);
            const bool reachable = other && device->peers >> other->number & 1 && other->memory.holds(values[i], 1);
            if (reachable) continue;
            return complain(kernel->name, "argument " + std::to_string(i) +
                            (other && other != device ? " points at another device's memory"
                                                      : " points at no allocation"), illegal_address);
        }
        const Fault fault = run(*kernel, grid, block, arguments.data(), seed ? seed + number : 0);
        if (fault != Fault::none) complain(kernel->name, name_of(fault), 0);
        return code_of(fault);
    };
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int cuInit(unsigned) { devices(); initialised = true; return success; }
EXPORT int cuDriverGetVersion(int* version) { *version = 12080; return success; }

EXPORT int cuGetErrorName(int code, const char** name) {
    switch (code) {
        case success: *name = "CUDA_SUCCESS"; break;
        case invalid_value: *name = "CUDA_ERROR_INVALID_VALUE"; break;
        case out_of_memory: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
        case not_initialised: *name = "CUDA_ERROR_NOT_INITIALIZED"; break;
        case invalid_device: *name = "CUDA_ERROR_INVALID_DEVICE"; break;
        case invalid_image: *name = "CUDA_ERROR_INVALID_IMAGE"; break;
        case invalid_context: *name = "CUDA_ERROR_INVALID_CONTEXT"; break;
        case invalid_handle: *name = "CUDA_ERROR_INVALID_HANDLE"; break;
        case not_found: *name = "CUDA_ERROR_NOT_FOUND"; break;
        case not_ready: *name = "CUDA_ERROR_NOT_READY"; break;
        case illegal_address: *name = "CUDA_ERROR_ILLEGAL_ADDRESS"; break;
        case already_enabled: *name = "CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED"; break;
        case illegal_instruction: *name = "CUDA_ERROR_ILLEGAL_INSTRUCTION"; break;
        case misaligned_address: *name = "CUDA_ERROR_MISALIGNED_ADDRESS"; break;
        case launch_failed: *name = "CUDA_ERROR_LAUNCH_FAILED"; break;
        case not_supported: *name = "CUDA_ERROR_NOT_SUPPORTED"; break;
        case capture_unsupported: *name = "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"; break;
        default: *name = nullptr; return invalid_value;
    }
    return success;
}
EXPORT int cuGetErrorString(int code, const char** text) { return cuGetErrorName(code, text); }

// NVIDIA's compiler looks for a driver too and asks it for tables that are not documented. It takes one that says that
// it holds nothing but its own size, and dereferences what it does not get.
EXPORT int cuGetExportTable(const void** table, const void*) {
    static const std::size_t nothing[8] = {sizeof(std::size_t)};
    *table = nothing;
    return success;
}

// Devices and contexts.
EXPORT int cuDeviceGetCount(int* count) { *count = static_cast<int>(devices().size()); return success; }
EXPORT int cuDeviceGet(int* device, int ordinal) {
    if (ordinal < 0 || static_cast<std::size_t>(ordinal) >= devices().size()) return invalid_device;
    *device = ordinal;
    return success;
}
EXPORT int cuDeviceGetName(char* name, int length, int device) {
    std::snprintf(name, static_cast<std::size_t>(length), "host-emulated device %d", device);
    return success;
}
EXPORT int cuDeviceGetUuid_v2(unsigned char* uuid, int device) {
    std::memcpy(uuid, "host-emulated", 13);
    uuid[13] = uuid[14] = 0;
    uuid[15] = static_cast<unsigned char>(device);
    return success;
}
EXPORT int cuDeviceGetUuid(unsigned char* uuid, int device) { return cuDeviceGetUuid_v2(uuid, device); }
EXPORT int cuDeviceTotalMem_v2(std::size_t* bytes, int device) {
    *bytes = devices()[static_cast<std::size_t>(device)]->memory.total();
    return success;
}
EXPORT int cuDeviceGetAttribute(int* value, int attribute, int) {
    const int capability = static_cast<int>(setting("ISOTHERM_EMULATED_CAPABILITY", 80));
    switch (attribute) {
        case 1: *value = 1024; break;            // threads of a block
        case 8: *value = 48 << 10; break;        // shared memory of a block
        case 10: *value = 32; break;             // lanes of a warp
        case 16: *value = 2; break;              // multiprocessors
        case 39: *value = 2048; break;           // threads of a multiprocessor
        case 41: *value = 1; break;              // one range of addresses
        case 75: *value = capability / 10; break;
        case 76: *value = capability % 10; break;
        case 115: *value = 0; break;             // pools for asynchronous allocation
        default: *value = 0;
    }
    return success;
}
// One block a multiprocessor, so that kernels whose blocks take their work in turn do so.
EXPORT int cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, void*, int, std::size_t, unsigned) {
    *blocks = 1;
    return success;
}
EXPORT int cuDevicePrimaryCtxRetain(void** handle, int device) {
    *handle = devices()[static_cast<std::size_t>(device)];
    return success;
}
EXPORT int cuDevicePrimaryCtxRelease_v2(int) { return success; }
EXPORT int cuCtxSetCurrent(void* handle) { context = static_cast<Device*>(handle); return success; }
EXPORT int cuCtxGetCurrent(void** handle) { *handle = context; return success; }
EXPORT int cuCtxGetDevice(int* device) {
    if (!context) return invalid_context;
    *device = static_cast<int>(context->number);
    return success;
}
EXPORT int cuCtxSynchronize() { Device* device; int code = usable(device); return code ? code : device->finish(); }
EXPORT int cuDeviceCanAccessPeer(int* can, int device, int peer) {
    *can = device != peer && setting("ISOTHERM_EMULATED_PEER", 1);
    return success;
}
EXPORT int cuCtxEnablePeerAccess(void* peer, unsigned) {
    Device* device;
    if (int code = usable(device)) return code;
    const uint32_t bit = 1u << static_cast<Device*>(peer)->number;
    return device->peers.fetch_or(bit) & bit ? already_enabled : success;
}
EXPORT int cuCtxDisablePeerAccess(void* peer) {
    Device* device;
    if (int code = usable(device)) return code;
    const uint32_t bit = 1u << static_cast<Device*>(peer)->number;
    return device->peers.fetch_and(~bit) & bit ? success : not_enabled;
}

// Memory.
EXPORT int cuMemGetInfo_v2(std::size_t* available, std::size_t* total) {
    Device* device;
    if (int code = usable(device)) return code;
    *available = device->memory.available();
    *total = device->memory.total();
    return success;
}
EXPORT int cuMemAlloc_v2(uintptr_t* address, std::size_t bytes) {
    Device* device;
    if (int code = usable(device)) return code;
    if (!bytes) return invalid_value;
    *address = device->memory.allocate(bytes);
    return *address ? success : out_of_memory;
}
EXPORT int cuMemFree_v2(uintptr_t address) {
    Device* device = owner(address);
    if (!device) return address ? complain("free", "an address of no device", invalid_value) : success;
    device->finish();
    bool overrun = false;
    if (!device->memory.release(address, overrun)) return complain("free", "no allocation begins there", invalid_value);
    if (overrun) return complain("free", "bytes past the end of an allocation were written", illegal_address);
    return success;
}
EXPORT int cuMemAllocAsync(uintptr_t* address, std::size_t bytes, void*) { return cuMemAlloc_v2(address, bytes); }
EXPORT int cuMemFreeAsync(uintptr_t address, void*) { return cuMemFree_v2(address); }
EXPORT int cuMemHostAlloc(void** at, std::size_t bytes, unsigned) {
    *at = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    if (!*at) return out_of_memory;
    std::memset(*at, 0xa5, bytes);
    std::lock_guard<std::mutex> hold(pinned_lock);
    pinned[reinterpret_cast<uintptr_t>(*at)] = bytes;
    return success;
}
EXPORT int cuMemFreeHost(void* at) {
    {
        std::lock_guard<std::mutex> hold(pinned_lock);
        const auto start = reinterpret_cast<uintptr_t>(at);
        const auto found = pinned.find(start);
        if (found == pinned.end()) return invalid_value;
        const auto read = pinned_reads.lower_bound(start);
        const bool lost = context && context->failed;
        if (!lost && read != pinned_reads.end() && *read < start + found->second) {
            complain("free of the host's memory", "a copy still reads it", illegal_address);
            std::abort();
        }
        pinned.erase(found);
    }
    std::free(at);
    return success;
}
EXPORT int cuMemcpyHtoDAsync_v2(uintptr_t to, const void* from, std::size_t bytes, void* stream) {
    return copy(stream, reinterpret_cast<void*>(to), from, bytes, true, false);
}
EXPORT int cuMemcpyDtoHAsync_v2(void* to, uintptr_t from, std::size_t bytes, void* stream) {
    return copy(stream, to, reinterpret_cast<const void*>(from), bytes, false, true);
}
EXPORT int cuMemcpyDtoDAsync_v2(uintptr_t to, uintptr_t from, std::size_t bytes, void* stream) {
    return copy(stream, reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes, false, false);
}
EXPORT int cuMemcpyHtoD_v2(uintptr_t to, const void* from, std::size_t bytes) {
    int code = cuMemcpyHtoDAsync_v2(to, from, bytes, nullptr);
    return code ? code : cuCtxSynchronize();
}
EXPORT int cuMemcpyDtoH_v2(void* to, uintptr_t from, std::size_t bytes) {
    int code = cuMemcpyDtoHAsync_v2(to, from, bytes, nullptr);
    return code ? code : cuCtxSynchronize();
}
EXPORT int cuMemcpyDtoD_v2(uintptr_t to, uintptr_t from, std::size_t bytes) {
    return cuMemcpyDtoDAsync_v2(to, from, bytes, nullptr);
}
EXPORT int cuMemcpyPeerAsync(uintptr_t to, void* to_context, uintptr_t from, void* from_context, std::size_t bytes,
                             void* stream) {
    Device* device;
    if (int code = usable(device)) return code;
    if (int code = check_range(static_cast<Device*>(to_context), to, bytes, "peer copy to a device")) return code;
    if (int code = check_range(static_cast<Device*>(from_context), from, bytes, "peer copy from a device")) return code;
    return queue(device, stream, [=] {
        std::memmove(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes);
        return int{success};
    });
}
EXPORT int cuMemsetD8Async(uintptr_t to, unsigned char value, std::size_t bytes, void* stream) {
    Device* device;
    if (int code = usable(device)) return code;
    if (int code = check_range(device, to, bytes, "fill")) return code;
    return queue(device, stream, [=] {
        std::memset(reinterpret_cast<void*>(to), value, bytes);
        return int{success};
    });
}
EXPORT int cuMemsetD8_v2(uintptr_t to, unsigned char value, std::size_t bytes) {
    return cuMemsetD8Async(to, value, bytes, nullptr);
}

// Streams and events.
EXPORT int cuStreamCreate(void** handle, unsigned) {
    Device* device;
    if (int code = usable(device)) return code;
    auto* stream = new Stream(device->failed, device->number * 97 + 13);
    std::lock_guard<std::mutex> hold(device->lock);
    device->streams.push_back(stream);
    *handle = stream;
    return success;
}
EXPORT int cuStreamCreateWithPriority(void** handle, unsigned flags, int) { return cuStreamCreate(handle, flags); }
EXPORT int cuStreamDestroy_v2(void* handle) {
    auto* stream = static_cast<Stream*>(handle);
    for (Device* device : devices()) {
        std::lock_guard<std::mutex> hold(device->lock);
        auto& all = device->streams;
        for (std::size_t i = 0; i < all.size(); i++) {
            if (all[i] == stream) all.erase(all.begin() + static_cast<long>(i));
        }
    }
    delete stream;
    return success;
}
EXPORT int cuStreamSynchronize(void* handle) {
    Device* device;
    if (int code = usable(device)) return code;
    Stream* stream = device->stream(handle);
    if (stream->recording) return capture_unsupported;
    stream->finish();
    return device->failed;
}
EXPORT int cuStreamQuery(void* handle) {
    Device* device;
    if (int code = usable(device)) return code;
    return device->stream(handle)->is_idle() ? success : not_ready;
}
EXPORT int cuEventCreate(void** handle, unsigned) { *handle = new Event; return success; }
EXPORT int cuEventDestroy_v2(void* handle) { delete static_cast<Event*>(handle); return success; }
EXPORT int cuEventRecord(void* handle, void* stream) {
    Device* device;
    if (int code = usable(device)) return code;
    if (device->stream(stream)->recording) return capture_unsupported;
    auto mark = std::make_shared<Mark>();
    auto* event = static_cast<Event*>(handle);
    {
        std::lock_guard<std::mutex> hold(event->lock);
        event->last = mark;
    }
    // Set even when the device has failed: whoever waits must not wait for ever.
    device->stream(stream)->put([mark] { mark->set(); return int{success}; });
    return success;
}
static std::shared_ptr<Mark> mark_of(void* handle) {
    auto* event = static_cast<Event*>(handle);
    std::lock_guard<std::mutex> hold(event->lock);
    return event->last;
}
EXPORT int cuEventQuery(void* handle) {
    Device* device;
    if (int code = usable(device)) return code;
    auto mark = mark_of(handle);
    return !mark || mark->is_set() ? success : not_ready;
}
EXPORT int cuEventSynchronize(void* handle) {
    Device* device;
    if (int code = usable(device)) return code;
    if (auto mark = mark_of(handle)) mark->wait();
    return device->failed;
}
EXPORT int cuEventElapsedTime_v2(float* milliseconds, void* from, void* to) {
    auto a = mark_of(from), b = mark_of(to);
    if (!a || !b) return invalid_handle;
    if (!a->is_set() || !b->is_set()) return not_ready;
    *milliseconds = std::chrono::duration<float, std::milli>(b->when - a->when).count();
    return success;
}
EXPORT int cuEventElapsedTime(float* milliseconds, void* from, void* to) {
    return cuEventElapsedTime_v2(milliseconds, from, to);
}
EXPORT int cuStreamWaitEvent(void* handle, void* event, unsigned) {
    Device* device;
    if (int code = usable(device)) return code;
    if (device->stream(handle)->recording) return capture_unsupported;
    if (auto mark = mark_of(event)) device->stream(handle)->put([mark] { mark->wait(); return int{success}; });
    return success;
}

// Modules and launches.
EXPORT int cuModuleLoadData(void** handle, const void* image) {
    auto* made = new Image{static_cast<const char*>(image)};
    if (made->text.find(".version") == std::string::npos) {
        delete made;
        return invalid_image;
    }
    *handle = made;
    return success;
}
EXPORT int cuModuleUnload(void* handle) { delete static_cast<Image*>(handle); return success; }
EXPORT int cuModuleGetFunction(void** function, void* handle, const char* name) {
    // What a real driver would not find in the PTX is not found here either.
    if (static_cast<Image*>(handle)->text.find(std::string(".entry ") + name + "(") == std::string::npos) return not_found;
    const Kernel* kernel = find_kernel(name);
    if (!kernel) return not_found;
    *function = const_cast<Kernel*>(kernel);
    return success;
}
EXPORT int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                          unsigned shared, void* stream, void** parameters, void**) {
    Device* device;
    if (int code = usable(device)) return code;
    const auto* kernel = static_cast<const Kernel*>(function);
    const bool fits = gx && gy && gz && bx && by && bz && gx <= 0x7fffffffu && gy <= 65535 && gz <= 65535 &&
                      bx * by * bz <= 1024 && bz <= 64 && shared == 0;
    if (!fits) return complain(kernel->name, "a launch of a size that no device takes", invalid_value);
    return queue(device, stream, launch(device, kernel, {gx, gy, gz}, {bx, by, bz}, parameters));
}

// Graphs: what a stream would have done, kept.
EXPORT int cuStreamBeginCapture_v2(void* handle, int) {
    Device* device;
    if (int code = usable(device)) return code;
    if (!handle) return capture_unsupported;
    static_cast<Stream*>(handle)->recording.reset(new Graph);
    return success;
}
EXPORT int cuStreamEndCapture(void* handle, void** graph) {
    Stream* stream = static_cast<Stream*>(handle);
    if (!stream->recording) return invalid_value;
    *graph = stream->recording.release();
    return success;
}
EXPORT int cuStreamIsCapturing(void* handle, int* status) {
    *status = handle && static_cast<Stream*>(handle)->recording ? 1 : 0;
    return success;
}
EXPORT int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long) {
    *executable = new Graph(*static_cast<Graph*>(graph));
    return success;
}
EXPORT int cuGraphUpload(void*, void*) { return success; }
EXPORT int cuGraphLaunch(void* executable, void* handle) {
    Device* device;
    if (int code = usable(device)) return code;
    for (const Work& work : static_cast<Graph*>(executable)->works) device->stream(handle)->put(work);
    return success;
}
EXPORT int cuGraphExecDestroy(void* executable) {
    // Work that was launched from it may still be queued: it holds copies.
    delete static_cast<Graph*>(executable);
    return success;
}
EXPORT int cuGraphDestroy(void* graph) { delete static_cast<Graph*>(graph); return success; }
