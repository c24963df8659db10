package ai.edgebit.example;

import ai.onnxruntime.NodeInfo;
import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import ai.onnxruntime.TensorInfo;
import java.nio.FloatBuffer;
import java.nio.LongBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * A model that {@code edgebit export onnx} wrote: token ids in, token ids out, greedily, with a KV cache.
 *
 * <p>For the onnxruntime-android AAR; it uses nothing of Android and runs on a desktop too. One thread at a time.
 */
public final class EdgebitModel implements AutoCloseable {
    private static final String PAST = "past_key_values.";
    private static final String PRESENT = "present.";
    private static final Pattern CONTEXT = Pattern.compile("\"context_max\"\\s*:\\s*([0-9]{1,9})\\b");

    private final OrtEnvironment environment = OrtEnvironment.getEnvironment();
    // Open as long as the session: it holds the operators' library.
    private final OrtSession.SessionOptions options = new OrtSession.SessionOptions();
    private final OrtSession session;

    /**
     * Opens model.onnx, which must be a file beside model.onnx.data: given as bytes, or from inside the APK, its weights
     * would fill Java's heap instead of being mapped.
     *
     * @param modelPath where model.onnx is, such as in getFilesDir()
     * @param library libedgebit_ort.so, a path or, for one in jniLibs, its name; null runs the slower function that the
     *     model carries
     */
    public EdgebitModel(String modelPath, String library) throws OrtException {
        try {
            if (library != null) {
                options.registerCustomOpLibrary(library);
            }
            session = environment.createSession(modelPath, options);
        } catch (OrtException | RuntimeException error) {
            options.close();
            throw error;
        }
    }

    /** What the exporter knew of the model, as JSON: "stop_tokens", "context_max", ... */
    public String conf() throws OrtException {
        return session.getMetadata().getCustomMetadata().get("edgebit.conf");
    }

    /** How many tokens prompt and answer may have together. */
    public int contextLength() throws OrtException {
        Matcher found = CONTEXT.matcher(String.valueOf(conf()));
        if (!found.find()) {
            throw new IllegalStateException("the model's metadata has no context_max: edgebit did not write it");
        }
        return Integer.parseInt(found.group(1));
    }

    /**
     * The tokens after the prompt, the likeliest at each step, up to one of stop (not included), to limit tokens, or to the
     * end of the context.
     */
    public List<Long> generate(long[] prompt, Set<Long> stop, int limit) throws OrtException {
        int room = contextLength() - prompt.length;
        if (prompt.length == 0 || room < 1) {
            throw new IllegalArgumentException(
                    "the prompt has " + prompt.length + " tokens, the model takes 1 to " + (contextLength() - 1));
        }
        int most = Math.min(limit, room);
        List<Long> answer = new ArrayList<>();
        Map<String, OnnxTensor> cache = emptyCache();
        try {
            long[] next = prompt;
            int tokens = 0;
            while (answer.size() < most) {
                tokens += next.length;
                OrtSession.Result result = run(next, tokens, cache);
                cache.values().forEach(OnnxTensor::close);
                cache = presentAsPast(result, cache.keySet());
                long token;
                try (OnnxTensor logits = (OnnxTensor) result.get("logits").get()) {
                    token = likeliest(logits);
                }
                if (stop.contains(token)) {
                    break;
                }
                answer.add(token);
                next = new long[] {token};
            }
            return answer;
        } finally {
            cache.values().forEach(OnnxTensor::close);
        }
    }

    @Override
    public void close() throws OrtException {
        session.close();
        options.close();
    }

    /** No tokens yet: [1, kv heads, 0, head size] for each input past_key_values.N.key and .value. */
    private Map<String, OnnxTensor> emptyCache() throws OrtException {
        Map<String, OnnxTensor> cache = new HashMap<>();
        for (NodeInfo input : session.getInputInfo().values()) {
            if (input.getName().startsWith(PAST)) {
                long[] shape = ((TensorInfo) input.getInfo()).getShape();
                long[] empty = {1, shape[1], 0, shape[3]};
                cache.put(input.getName(), OnnxTensor.createTensor(environment, FloatBuffer.allocate(0), empty));
            }
        }
        return cache;
    }

    /** One step: next stands after the tokens of the cache, tokens is how many there are with it. */
    private OrtSession.Result run(long[] next, int tokens, Map<String, OnnxTensor> cache) throws OrtException {
        long[] mask = new long[tokens];
        Arrays.fill(mask, 1);
        Map<String, OnnxTensor> inputs = new HashMap<>(cache);
        try (OnnxTensor ids = row(next);
                OnnxTensor attentionMask = row(mask)) {
            inputs.put("input_ids", ids);
            inputs.put("attention_mask", attentionMask);
            return session.run(inputs);
        }
    }

    private OnnxTensor row(long[] values) throws OrtException {
        return OnnxTensor.createTensor(environment, LongBuffer.wrap(values), new long[] {1, values.length});
    }

    /** What is present now is past at the next step. */
    private static Map<String, OnnxTensor> presentAsPast(OrtSession.Result result, Set<String> names) {
        Map<String, OnnxTensor> cache = new HashMap<>();
        for (String name : names) {
            cache.put(name, (OnnxTensor) result.get(PRESENT + name.substring(PAST.length())).get());
        }
        return cache;
    }

    /** The token with the greatest logit after the last position; logits are [1, tokens, vocabulary]. */
    private static long likeliest(OnnxTensor logits) {
        long[] shape = logits.getInfo().getShape();
        FloatBuffer values = logits.getFloatBuffer();
        int vocabulary = (int) shape[2];
        int last = (int) (shape[1] - 1) * vocabulary;
        int best = 0;
        for (int token = 1; token < vocabulary; token++) {
            if (values.get(last + token) > values.get(last + best)) {
                best = token;
            }
        }
        return best;
    }
}
