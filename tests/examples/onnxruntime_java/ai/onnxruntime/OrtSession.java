package ai.onnxruntime;

import java.util.Map;
import java.util.Optional;

public class OrtSession implements AutoCloseable {
    public native Map<String, NodeInfo> getInputInfo() throws OrtException;

    public native OnnxModelMetadata getMetadata() throws OrtException;

    public native Result run(Map<String, ? extends OnnxTensorLike> inputs) throws OrtException;

    @Override
    public native void close() throws OrtException;

    public static class SessionOptions implements AutoCloseable {
        public native void registerCustomOpLibrary(String path) throws OrtException;

        @Override
        public native void close();
    }

    public static class Result implements AutoCloseable {
        public native Optional<OnnxValue> get(String name);

        @Override
        public native void close();
    }
}
