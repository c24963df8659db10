/* A model that `edgebit export onnx` wrote, and the KV cache of one conversation with it. */
#pragma once

#include "runtime.hpp"

#include <string>
#include <vector>

class Decoder {
  public:
    /* Opens `folder`/model.onnx.
     *   library  libedgebit_ort.so; empty runs without it, by the slower function that the model carries
     *   threads  0 takes ONNX Runtime's choice, one for each core
     * Throws Error where the folder cannot be run. The runtime must outlive the decoder. */
    Decoder(const Runtime &runtime, const std::string &folder, const std::string &library, int threads);

    /* Puts `ids` after those of the calls before, and gives the logits of what comes next, [vocabulary]. After the first
     * call one at a time: before ONNX Runtime 1.20 its attention takes several for the beginning of a text. */
    std::vector<float> step(const std::vector<std::int64_t> &ids);

    /* The entry `key` of the model's metadata; empty where it has none. */
    std::string metadata(const char *key) const;

    std::size_t tokens() const { return n_past_; }

  private:
    std::vector<std::string> input_names() const;
    std::vector<std::int64_t> input_shape(std::size_t index) const;
    Handle<OrtValue> tensor(void *data, std::size_t bytes, const std::vector<std::int64_t> &shape,
                            ONNXTensorElementDataType type) const;
    std::vector<float> last_row(OrtValue *logits) const;

    const Runtime &runtime_;
    const OrtApi &api_;
    Handle<OrtMemoryInfo> memory_{nullptr, nullptr};
    Handle<OrtSession> session_{nullptr, nullptr};
    std::vector<std::string> past_names_;    // past_key_values.0.key, past_key_values.0.value, ...
    std::vector<std::string> present_names_; // present.0.key, present.0.value, ...
    std::vector<Handle<OrtValue>> cache_;    // [1, kv heads, tokens, head size] each, in the order of the names
    std::size_t n_past_ = 0;                 // tokens in the cache
};
