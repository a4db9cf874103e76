import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.IntBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import org.tensorflow.Result;
import org.tensorflow.SavedModelBundle;
import org.tensorflow.Tensor;
import org.tensorflow.ndarray.NdArray;
import org.tensorflow.ndarray.NdArrays;
import org.tensorflow.ndarray.Shape;
import org.tensorflow.ndarray.buffer.DataBuffers;
import org.tensorflow.types.TBool;
import org.tensorflow.types.TFloat32;
import org.tensorflow.types.TInt32;
import org.tensorflow.types.TString;

/**
 * Asks the SavedModel for servers without tensorflow-text: images and word pieces to embeddings.
 *
 * <p>Usage: {@code java -cp JARS TokensOnly.java SAVED_MODEL FOLDER NUM_IMAGES NUM_TEXTS}. FOLDER holds the files 0, 1, … of
 * the images, and token_ids and padding_mask, little-endian int32 of NUM_TEXTS rows. It receives image_embeddings and
 * text_embeddings, little-endian float32, and decoded, a byte an image.
 */
public final class TokensOnly {
  public static void main(String[] arguments) throws IOException {
    Path folder = Path.of(arguments[1]);
    int numImages = Integer.parseInt(arguments[2]);
    int numTexts = Integer.parseInt(arguments[3]);
    NdArray<byte[]> files = NdArrays.ofObjects(byte[].class, Shape.of(numImages));
    for (int i = 0; i < numImages; i++) {
      files.setObject(Files.readAllBytes(folder.resolve(Integer.toString(i))), i);
    }
    try (SavedModelBundle model = SavedModelBundle.load(arguments[0], "serve");
        TString images = TString.tensorOfBytes(files);
        TInt32 tokenIds = matrix(folder.resolve("token_ids"), numTexts);
        TInt32 paddingMask = matrix(folder.resolve("padding_mask"), numTexts);
        Result ofImages = model.function("encode_image").call(Map.of("image_bytes", images));
        Result ofTexts =
            model
                .function("encode_tokens")
                .call(Map.<String, Tensor>of("token_ids", tokenIds, "padding_mask", paddingMask))) {
      write(folder.resolve("image_embeddings"), (TFloat32) ofImages.get("image_embeddings").get());
      write(folder.resolve("text_embeddings"), (TFloat32) ofTexts.get("text_embeddings").get());
      TBool decoded = (TBool) ofImages.get("decoded").get();
      byte[] flags = new byte[numImages];
      for (int i = 0; i < numImages; i++) {
        flags[i] = (byte) (decoded.getBoolean(i) ? 1 : 0);
      }
      Files.write(folder.resolve("decoded"), flags);
    }
  }

  private static TInt32 matrix(Path path, int rows) throws IOException {
    IntBuffer values = ByteBuffer.wrap(Files.readAllBytes(path)).order(ByteOrder.LITTLE_ENDIAN).asIntBuffer();
    int[] copied = new int[values.remaining()];
    values.get(copied);
    return TInt32.tensorOf(Shape.of(rows, copied.length / rows), DataBuffers.of(copied));
  }

  private static void write(Path path, TFloat32 embeddings) throws IOException {
    ByteBuffer bytes = ByteBuffer.allocate((int) embeddings.size() * Float.BYTES).order(ByteOrder.LITTLE_ENDIAN);
    embeddings.scalars().forEach(one -> bytes.putFloat(one.getFloat()));
    Files.write(path, bytes.array());
  }
}
