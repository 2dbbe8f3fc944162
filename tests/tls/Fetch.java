import java.net.URI;
import javax.net.ssl.HttpsURLConnection;

/** Prints the status of the response to a GET request for each URL. */
public class Fetch {
    public static void main(String[] urls) throws Exception {
        for (String url : urls) {
            var connection = (HttpsURLConnection) URI.create(url).toURL().openConnection();
            System.out.println(connection.getResponseCode());
        }
    }
}
