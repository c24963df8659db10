package ai.edgebit.example;

import java.util.Arrays;
import java.util.HashSet;
import java.util.Set;

/** Runs {@link EdgebitModel} on a desktop: model.onnx, the library ("none": without), prompt ids, stop ids, how many. */
public final class Generate {
    public static void main(String[] arguments) throws Exception {
        String library = arguments[1].equals("none") ? null : arguments[1];
        Set<Long> stop = new HashSet<>();
        Arrays.stream(ids(arguments[3])).forEach(stop::add);
        try (EdgebitModel model = new EdgebitModel(arguments[0], library)) {
            System.out.println(model.generate(ids(arguments[2]), stop, Integer.parseInt(arguments[4])));
        }
    }

    private static long[] ids(String text) {
        return Arrays.stream(text.split(",")).filter(word -> !word.isEmpty()).mapToLong(Long::parseLong).toArray();
    }
}
