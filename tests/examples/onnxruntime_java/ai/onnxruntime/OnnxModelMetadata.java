package ai.onnxruntime;

import java.util.Map;

public final class OnnxModelMetadata {
    public native Map<String, String> getCustomMetadata();
}
