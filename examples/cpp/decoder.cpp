#include "decoder.hpp"

#include <fstream>

namespace {
const std::string kPast = "past_key_values.";
const std::string kPresent = "present.";

/* `first` and then `names`, which must outlive what is returned. */
std::vector<const char *> after(std::vector<const char *> first, const std::vector<std::string> &names) {
    for (const std::string &name : names)
        first.push_back(name.c_str());
    return first;
}
} // namespace

Decoder::Decoder(const Runtime &runtime, const std::string &folder, const std::string &library, int threads)
    : runtime_(runtime), api_(runtime.api()) {
    const std::string path = folder + "/model.onnx";
    if (!std::ifstream(path))
        throw Error(path + ": no such file. Give the folder that `edgebit export onnx` wrote.");

    OrtSessionOptions *options = nullptr;
    runtime_.check(api_.CreateSessionOptions(&options), "session options");
    const Handle<OrtSessionOptions> options_guard(options, api_.ReleaseSessionOptions);
    runtime_.check(api_.SetIntraOpNumThreads(options, threads), "threads");
    if (!library.empty())
        runtime_.check(api_.RegisterCustomOpsLibrary_V2(options, library.c_str()),
                       library + " cannot be used (--library none runs without it)");

    // By path and not from memory: ONNX Runtime maps model.onnx.data and uses the weights where they lie.
    OrtSession *session = nullptr;
    runtime_.check(
        api_.CreateSession(runtime_.env(), path.c_str(), options, &session),
        path + (library.empty()
                    ? " without libedgebit_ort.so, which is not in the folder or not wanted: what the model carries in "
                      "its place takes ONNX Runtime 1.24; of --fallback none, nothing"
                    : ""));
    session_ = {session, api_.ReleaseSession};
    OrtMemoryInfo *memory = nullptr;
    runtime_.check(api_.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory), "memory");
    memory_ = {memory, api_.ReleaseMemoryInfo};

    const std::vector<std::string> inputs = input_names();
    for (std::size_t i = 0; i < inputs.size(); i++) {
        if (inputs[i].compare(0, kPast.size(), kPast) != 0)
            continue;
        std::vector<std::int64_t> shape = input_shape(i); // [batch, kv heads, tokens, head size]
        if (shape.size() != 4)
            throw Error(path + ": " + inputs[i] + " has " + std::to_string(shape.size()) + " dimensions, not 4");
        shape[0] = 1;
        shape[2] = 0;
        past_names_.push_back(inputs[i]);
        present_names_.push_back(kPresent + inputs[i].substr(kPast.size()));
        static float nothing;
        cache_.push_back(tensor(&nothing, 0, shape, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT));
    }
    if (cache_.empty())
        throw Error(path + ": no decoder with a KV cache: it has no input " + kPast + "0.key");
}

std::vector<float> Decoder::step(const std::vector<std::int64_t> &ids) {
    const auto length = static_cast<std::int64_t>(ids.size());
    std::vector<std::int64_t> input = ids;
    std::vector<std::int64_t> mask(n_past_ + ids.size(), 1);
    const Handle<OrtValue> input_ids =
        tensor(input.data(), input.size() * sizeof input[0], {1, length}, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64);
    const Handle<OrtValue> attention_mask =
        tensor(mask.data(), mask.size() * sizeof mask[0], {1, static_cast<std::int64_t>(mask.size())},
               ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64);

    std::vector<const OrtValue *> values{input_ids.get(), attention_mask.get()};
    for (const Handle<OrtValue> &past : cache_)
        values.push_back(past.get());
    const std::vector<const char *> from = after({"input_ids", "attention_mask"}, past_names_);
    const std::vector<const char *> to = after({"logits"}, present_names_);
    std::vector<OrtValue *> results(to.size(), nullptr);
    runtime_.check(api_.Run(session_.get(), nullptr, from.data(), values.data(), values.size(), to.data(), to.size(),
                            results.data()),
                   "the model does not run");

    const Handle<OrtValue> logits(results[0], api_.ReleaseValue);
    for (std::size_t i = 0; i < cache_.size(); i++)
        cache_[i].reset(results[i + 1]); // what is present now is past at the next step
    n_past_ += ids.size();
    return last_row(logits.get());
}

std::string Decoder::metadata(const char *key) const {
    OrtModelMetadata *metadata = nullptr;
    runtime_.check(api_.SessionGetModelMetadata(session_.get(), &metadata), "metadata");
    const Handle<OrtModelMetadata> guard(metadata, api_.ReleaseModelMetadata);
    OrtAllocator *allocator = nullptr;
    runtime_.check(api_.GetAllocatorWithDefaultOptions(&allocator), "allocator");
    char *value = nullptr;
    runtime_.check(api_.ModelMetadataLookupCustomMetadataMap(metadata, allocator, key, &value), key);
    if (value == nullptr)
        return {};
    const std::string out = value;
    runtime_.check(api_.AllocatorFree(allocator, value), key);
    return out;
}

std::vector<std::string> Decoder::input_names() const {
    OrtAllocator *allocator = nullptr;
    runtime_.check(api_.GetAllocatorWithDefaultOptions(&allocator), "allocator");
    std::size_t count = 0;
    runtime_.check(api_.SessionGetInputCount(session_.get(), &count), "inputs");
    std::vector<std::string> names;
    for (std::size_t i = 0; i < count; i++) {
        char *name = nullptr;
        runtime_.check(api_.SessionGetInputName(session_.get(), i, allocator, &name), "inputs");
        names.emplace_back(name);
        runtime_.check(api_.AllocatorFree(allocator, name), "inputs");
    }
    return names;
}

std::vector<std::int64_t> Decoder::input_shape(std::size_t index) const {
    OrtTypeInfo *type = nullptr;
    runtime_.check(api_.SessionGetInputTypeInfo(session_.get(), index, &type), "shapes");
    const Handle<OrtTypeInfo> guard(type, api_.ReleaseTypeInfo);
    const OrtTensorTypeAndShapeInfo *info = nullptr; // owned by `type`
    runtime_.check(api_.CastTypeInfoToTensorInfo(type, &info), "shapes");
    std::size_t n_dims = 0;
    runtime_.check(api_.GetDimensionsCount(info, &n_dims), "shapes");
    std::vector<std::int64_t> shape(n_dims);
    runtime_.check(api_.GetDimensions(info, shape.data(), n_dims), "shapes");
    return shape;
}

Handle<OrtValue> Decoder::tensor(void *data, std::size_t bytes, const std::vector<std::int64_t> &shape,
                                 ONNXTensorElementDataType type) const {
    OrtValue *value = nullptr;
    runtime_.check(
        api_.CreateTensorWithDataAsOrtValue(memory_.get(), data, bytes, shape.data(), shape.size(), type, &value),
        "tensor");
    return {value, api_.ReleaseValue};
}

std::vector<float> Decoder::last_row(OrtValue *logits) const {
    OrtTensorTypeAndShapeInfo *info = nullptr;
    runtime_.check(api_.GetTensorTypeAndShape(logits, &info), "logits");
    const Handle<OrtTensorTypeAndShapeInfo> guard(info, api_.ReleaseTensorTypeAndShapeInfo);
    std::int64_t shape[3] = {0, 0, 0}; // [batch, tokens, vocabulary]; `--logits last` writes one token alone
    runtime_.check(api_.GetDimensions(info, shape, 3), "logits");
    void *data = nullptr;
    runtime_.check(api_.GetTensorMutableData(logits, &data), "logits");
    const auto *rows = static_cast<const float *>(data);
    return {rows + (shape[1] - 1) * shape[2], rows + shape[1] * shape[2]};
}
