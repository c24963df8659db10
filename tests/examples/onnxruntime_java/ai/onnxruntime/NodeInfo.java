package ai.onnxruntime;

public class NodeInfo {
    public native String getName();

    public native ValueInfo getInfo();
}
