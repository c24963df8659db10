/* ONNX Runtime, loaded at run time.
 *
 * A program that is linked with libonnxruntime.so starts with that release alone: the one function it exports,
 * OrtGetApiBase, carries the release as its symbol version. dlopen() and dlsym() ask for no version. */
#pragma once

#include <memory>
#include <stdexcept>
#include <string>

#if __has_include(<onnxruntime_c_api.h>)
#include <onnxruntime_c_api.h>
#else
#include "ort_c_api.h"
#endif

/* Something the user can mend: what() says what is wrong, where, and how. */
struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/* An object of ONNX Runtime, released by the API's own function for its kind. */
template <class T> using Handle = std::unique_ptr<T, void (*)(T *)>;

class Runtime {
  public:
    /* Loads libonnxruntime.so from `library`, a path or a name that the system's loader searches for.
     * Throws Error where it cannot be loaded or is older than 1.19. */
    explicit Runtime(const std::string &library);

    const OrtApi &api() const { return *api_; }
    const std::string &version() const { return version_; }
    const OrtEnv *env() const { return env_.get(); }

    /* Throws Error with the message of `status` after `what`, if there is one. */
    void check(OrtStatus *status, const std::string &what) const;

  private:
    const OrtApi *api_ = nullptr;
    std::string version_;
    Handle<OrtEnv> env_{nullptr, nullptr};
};

/* Throws Error where the library at `library` is for another kind of machine than this program: the loader would say
 * that there is no such file. */
void check_machine(const std::string &library);

/* How many kernels libedgebit_ort.so at `library` has made in this process. A session that was given the library and
 * made none runs the slower function that the model carries. */
std::uint64_t edgebit_kernels(const std::string &library);
