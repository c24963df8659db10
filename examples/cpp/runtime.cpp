#include "runtime.hpp"

#include <algorithm>
#include <cstring>
#include <dlfcn.h>
#include <elf.h>
#include <fstream>

namespace {
/* 1.19 is the first release whose operators run these models; what is called here is older. */
constexpr std::uint32_t kOldestApi = 19;

/* e_machine of an ELF file, as <elf.h> numbers it; 0 for what is none. */
int machine_of(const std::string &path) {
    unsigned char head[20] = {};
    std::ifstream file(path, std::ios::binary);
    const bool whole = static_cast<bool>(file.read(reinterpret_cast<char *>(head), sizeof head));
    if (!whole || std::memcmp(head, ELFMAG, SELFMAG) != 0)
        return 0;
    return head[18] | head[19] << 8;
}

std::string machine_name(int number) {
    switch (number) {
    case EM_X86_64:
        return "x86-64";
    case EM_AARCH64:
        return "aarch64";
    case EM_ARM:
        return "arm";
    default:
        return "machine " + std::to_string(number);
    }
}
} // namespace

Runtime::Runtime(const std::string &library) {
    void *handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL); // never closed: its threads live as long as we do
    if (handle == nullptr)
        throw Error(std::string("ONNX Runtime cannot be loaded: ") + dlerror() +
                    ". Name libonnxruntime.so by --ort PATH or ORT_LIBRARY.");
    using GetApiBase = const OrtApiBase *(*)();
    const auto get_base = reinterpret_cast<GetApiBase>(dlsym(handle, "OrtGetApiBase"));
    if (get_base == nullptr)
        throw Error(library + ": not ONNX Runtime: it has no OrtGetApiBase. Name libonnxruntime.so by --ort PATH.");
    version_ = get_base()->GetVersionString();
    api_ = get_base()->GetApi(kOldestApi);
    if (api_ == nullptr)
        throw Error(library + ": ONNX Runtime " + version_ + " is too old: take 1." + std::to_string(kOldestApi) +
                    " or later.");
    // Each failure comes back as a status, so the log has nothing to add.
    OrtEnv *env = nullptr;
    check(api_->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "edgebit", &env), "ONNX Runtime does not start");
    env_ = {env, api_->ReleaseEnv};
}

void Runtime::check(OrtStatus *status, const std::string &what) const {
    if (status == nullptr)
        return;
    std::string message = api_->GetErrorMessage(status);
    api_->ReleaseStatus(status);
    std::replace(message.begin(), message.end(), '\n', ' ');
    throw Error(what + ": " + message);
}

void check_machine(const std::string &library) {
    const int theirs = machine_of(library), ours = machine_of("/proc/self/exe");
    if (theirs != 0 && ours != 0 && theirs != ours)
        throw Error(library + " is for " + machine_name(theirs) + ", this machine is " + machine_name(ours) +
                    ". Export for this one (edgebit export onnx --target), or give --library none.");
}

std::uint64_t edgebit_kernels(const std::string &library) {
    void *handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL); // the copy that ONNX Runtime has loaded
    if (handle == nullptr)
        throw Error(std::string("the operators' library cannot be loaded: ") + dlerror());
    const auto count = reinterpret_cast<std::uint64_t (*)()>(dlsym(handle, "edgebit_ort_kernels"));
    if (count == nullptr)
        throw Error(library + ": not edgebit's library: it has no edgebit_ort_kernels");
    const std::uint64_t kernels = count();
    dlclose(handle);
    return kernels;
}
