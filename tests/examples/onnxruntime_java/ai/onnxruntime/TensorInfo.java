package ai.onnxruntime;

public class TensorInfo implements ValueInfo {
    public native long[] getShape();
}
