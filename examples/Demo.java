// Three requests: JSON, images in float32, a language model's logits in bfloat16.
//     java examples/Demo.java http://127.0.0.1:8000
// It needs Java 11 or newer, and no library.
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

public class Demo {
    static final HttpClient CLIENT = HttpClient.newHttpClient();
    // A program with a JSON library would use it. NaN and infinities are texts, "NaN" or
    // "Infinity", which parseDouble reads, too.
    static final Pattern LOSS = Pattern.compile("\"loss\":\"?([^\",}]+)");

    public static void main(String[] arguments) throws IOException, InterruptedException {
        URI uri = URI.create(arguments[0] + "/v1/cross_entropy?outputs=loss");
        String rows = "[[0,0,0,0,0], [0,0,1,1,0], [1,3,2,3,0], [0,0,0,0,0]]";
        String worked = "{\"logits\": " + rows + ", \"labels\": [1, 4, 3, 2]}";
        show(uri, "four rows", "application/json", worked.getBytes(StandardCharsets.UTF_8));

        int pixels = 4 * 256 * 256;
        ByteBuffer images = safetensors("F32", "[4,3,256,256]", 12 * pixels, "[4,256,256]", pixels, 3);
        for (int i = 0; i < 3 * pixels; i++) images.putFloat(logit(i));
        show(uri, "images", "application/x-safetensors", images.array());

        ByteBuffer tokens = safetensors("BF16", "[64,32000]", 2 * 64 * 32000, "[64]", 64, 32000);
        for (int i = 0; i < 64 * 32000; i++) {
            // bfloat16 is the upper half of float32.
            tokens.putShort((short) (Float.floatToRawIntBits(logit(i)) >>> 16));
        }
        show(uri, "language model", "application/x-safetensors", tokens.array());
    }

    /** Numbers from 0 to 10 that look like random ones. */
    static float logit(long i) {
        return (float) (i * 7919 % 1009 / 100.0);
    }

    /** A body of safetensors with its header and labels, and so many bytes of room for logits. */
    static ByteBuffer safetensors(
            String dtype, String shape, int size, String labelShape, int labels, int classes) {
        String tensor = "\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%d,%d]}";
        int middle = 8 * labels;
        byte[] header = ("{" + String.format(tensor, "labels", "I64", labelShape, 0, middle) + ","
                + String.format(tensor, "logits", dtype, shape, middle, middle + size) + "}")
                .getBytes(StandardCharsets.UTF_8);
        ByteBuffer body = ByteBuffer.allocate(8 + header.length + middle + size);
        // A ByteBuffer is big-endian unless it is told otherwise.
        body.order(ByteOrder.LITTLE_ENDIAN).putLong(header.length).put(header);
        for (int i = 0; i < labels; i++) body.putLong(i * 31L % classes);
        return body;
    }

    static void show(URI uri, String name, String mediaType, byte[] body)
            throws IOException, InterruptedException {
        HttpRequest request = HttpRequest.newBuilder(uri)
                .header("Content-Type", mediaType)
                .header("Accept", "application/json")
                .POST(HttpRequest.BodyPublishers.ofByteArray(body))
                .build();
        HttpResponse<String> answer = CLIENT.send(request, HttpResponse.BodyHandlers.ofString());
        Matcher loss = LOSS.matcher(answer.body());
        if (answer.statusCode() != 200 || !loss.find()) {
            throw new IOException(answer.statusCode() + ": " + answer.body());
        }
        System.out.printf("%-14s %.4f%n", name, Double.parseDouble(loss.group(1)));
    }
}
