/* Greedy answers of a model that `edgebit export onnx` wrote: token ids in, token ids out. */
#include "decoder.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>

namespace {
const char *const kUsage =
    "usage: generate FOLDER IDS [options]\n"
    "  FOLDER           what `edgebit export onnx` wrote\n"
    "  IDS              the prompt's token ids, such as 765,39,449; @FILE reads them from a file\n"
    "  --tokens N       at most so many new tokens (default: 64)\n"
    "  --stop IDS       stop at these tokens, not at the model's own; none: never\n"
    "  --library PATH   libedgebit_ort.so (default: the one in FOLDER, if any); none: run without it\n"
    "  --ort PATH       libonnxruntime.so (default: ORT_LIBRARY, else the system's)\n"
    "  --threads N      (default: one for each core)\n";

/* The command line cannot be understood. */
struct UsageError : Error {
    using Error::Error;
};

struct Options {
    std::string folder, ids, stop, library, ort = "libonnxruntime.so";
    bool own_stop = false, own_library = false;
    int tokens = 64, threads = 0;
};

constexpr long kMostThreads = 1024;

long number(const std::string &text, const std::string &what, long most = 0x7fffffff) {
    char *end = nullptr;
    const long value = std::strtol(text.c_str(), &end, 10);
    if (text.empty() || *end != '\0' || value < 0 || value > most)
        throw UsageError(what + ": '" + text + "' is no number from 0 to " + std::to_string(most));
    return value;
}

/* Ids apart by commas or white space. */
std::vector<std::int64_t> parse_ids(std::string text, const std::string &what) {
    std::replace(text.begin(), text.end(), ',', ' ');
    std::istringstream words(text);
    std::vector<std::int64_t> ids;
    for (std::string word; words >> word;)
        ids.push_back(number(word, what));
    return ids;
}

std::vector<std::int64_t> read_prompt(const std::string &ids) {
    std::string text = ids;
    if (ids[0] == '@') {
        std::ifstream file(ids.substr(1));
        if (!file)
            throw Error(ids.substr(1) + ": cannot be read");
        text.assign(std::istreambuf_iterator<char>(file), {});
    }
    std::vector<std::int64_t> prompt = parse_ids(text, ids[0] == '@' ? ids.substr(1) : "IDS");
    if (prompt.empty())
        throw Error("the prompt has no token: give its ids, such as 765,39,449");
    return prompt;
}

Options parse(int argc, char **argv) {
    Options options;
    if (const char *library = std::getenv("ORT_LIBRARY"); library != nullptr && *library != '\0')
        options.ort = library;
    std::vector<std::string> places;
    for (int i = 1; i < argc; i++) {
        const std::string word = argv[i];
        if (word.compare(0, 2, "--") != 0) {
            places.push_back(word);
            continue;
        }
        if (word == "--help") {
            std::cout << kUsage;
            std::exit(0);
        }
        if (i + 1 == argc)
            throw UsageError(word + " needs a value");
        const std::string value = argv[++i];
        if (word == "--tokens")
            options.tokens = static_cast<int>(number(value, word));
        else if (word == "--threads")
            options.threads = static_cast<int>(number(value, word, kMostThreads));
        else if (word == "--stop")
            options.stop = value, options.own_stop = true;
        else if (word == "--library")
            options.library = value, options.own_library = true;
        else if (word == "--ort")
            options.ort = value;
        else
            throw UsageError("there is no " + word);
    }
    if (places.size() != 2 || places[1].empty())
        throw UsageError("FOLDER and IDS are needed, ids apart by commas or in quotes");
    options.folder = places[0];
    options.ids = places[1];
    return options;
}

std::string find_library(const Options &options) {
    if (options.own_library)
        return options.library == "none" ? "" : std::filesystem::absolute(options.library).string();
    const std::filesystem::path beside = std::filesystem::absolute(options.folder) / "libedgebit_ort.so";
    return std::filesystem::exists(beside) ? beside.string() : "";
}

/* The numbers of `key` in the model's edgebit.conf, a flat JSON object; empty where it has none. */
std::string conf_numbers(const Decoder &decoder, const std::string &key) {
    const std::string conf = decoder.metadata("edgebit.conf");
    const std::string name = '"' + key + "\":";
    const std::size_t at = conf.find(name);
    if (at == std::string::npos)
        return {};
    const std::size_t from = conf.find_first_not_of(" [", at + name.size());
    return conf.substr(from, conf.find_first_not_of("0123456789, ", from) - from);
}

void generate(const Options &options) {
    std::vector<std::int64_t> ids = read_prompt(options.ids);
    const Runtime runtime(options.ort);
    const std::string library = find_library(options);
    if (!library.empty())
        check_machine(library);
    Decoder decoder(runtime, options.folder, library, options.threads);
    const std::vector<std::int64_t> vocabulary = parse_ids(conf_numbers(decoder, "vocab_size"), "vocab_size");
    for (const std::int64_t id : ids)
        if (!vocabulary.empty() && id >= vocabulary[0])
            throw Error("there is no token " + std::to_string(id) + ": the model has " + std::to_string(vocabulary[0]));
    std::cerr << "ONNX Runtime " << runtime.version() << ", "
              << (library.empty() || edgebit_kernels(library) == 0 ? "without edgebit's kernel"
                                                                   : "edgebit's kernel is bound")
              << '\n';

    const std::string stop_text = options.own_stop ? options.stop : conf_numbers(decoder, "stop_tokens");
    const std::vector<std::int64_t> stop =
        stop_text == "none" ? std::vector<std::int64_t>{} : parse_ids(stop_text, "--stop");
    const std::vector<std::int64_t> context = parse_ids(conf_numbers(decoder, "context_max"), "context_max");
    for (int i = 0; i < options.tokens; i++) {
        if (!context.empty() && static_cast<std::int64_t>(decoder.tokens() + ids.size()) > context[0])
            throw Error("the context of " + std::to_string(context[0]) + " tokens is full");
        const std::vector<float> logits = decoder.step(ids);
        const std::int64_t best = std::max_element(logits.begin(), logits.end()) - logits.begin();
        if (std::find(stop.begin(), stop.end(), best) != stop.end())
            break;
        std::cout << (i == 0 ? "" : " ") << best << std::flush;
        ids = {best};
    }
    std::cout << '\n';
}
} // namespace

int main(int argc, char **argv) {
    try {
        generate(parse(argc, argv));
        return 0;
    } catch (const UsageError &error) {
        std::cerr << "error: " << error.what() << '\n' << kUsage;
        return 2;
    } catch (const std::exception &error) {
        std::cerr << "error: " << error.what() << '\n';
        return 1;
    }
}
