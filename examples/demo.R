# Three requests: JSON, images in float32, a language model's logits in bfloat16.
#     Rscript examples/demo.R http://127.0.0.1:8000
# It needs the packages curl and jsonlite (on Debian: r-cran-curl, r-cran-jsonlite).
url <- paste0(commandArgs(trailingOnly = TRUE)[1], "/v1/cross_entropy?outputs=loss")

show <- function(name, type, body) {
  handle <- curl::new_handle(post = TRUE, postfieldsize = length(body), postfields = body)
  curl::handle_setheaders(handle, "Content-Type" = type, "Accept" = "application/json")
  answer <- curl::curl_fetch_memory(url, handle)
  content <- jsonlite::fromJSON(rawToChar(answer$content))
  if (answer$status_code != 200) stop(answer$status_code, ": ", content$detail)
  # NaN and infinities are texts: "NaN", "Infinity" or "-Infinity", all of which R reads.
  cat(sprintf("%-14s %.4f\n", name, as.numeric(content$loss)))
}

# Numbers from 0 to 10 that look like random ones, in float32.
logits <- function(count) {
  writeBin((seq(0, count - 1) * 7919) %% 1009 / 100, raw(), size = 4, endian = "little")
}

# Class indices in int64, of which R has none: each as two halves in int32.
labels <- function(count, classes) {
  writeBin(as.integer(rbind((seq(0, count - 1) * 31) %% classes, 0)), raw(), endian = "little")
}

# A body of safetensors: the header's length in 8 bytes, the header, labels, logits. It is in
# row-major order, and R in column-major order: send aperm(x, rev(seq_along(dim(x)))) of an array x.
safetensors <- function(dtype, shape, logits, label_shape, labels) {
  tensor <- '{"dtype":"%s","shape":%s,"data_offsets":[%d,%d]}'
  middle <- length(labels)
  header <- sprintf('{"labels":%s,"logits":%s}', sprintf(tensor, "I64", label_shape, 0L, middle),
                    sprintf(tensor, dtype, shape, middle, middle + length(logits)))
  c(writeBin(c(nchar(header), 0L), raw(), endian = "little"), charToRaw(header), labels, logits)
}

rows <- "[[0,0,0,0,0], [0,0,1,1,0], [1,3,2,3,0], [0,0,0,0,0]]"
show("four rows", "application/json",
     charToRaw(sprintf('{"logits": %s, "labels": [1, 4, 3, 2]}', rows)))

images <- safetensors("F32", "[4,3,256,256]", logits(4 * 3 * 256 * 256),
                      "[4,256,256]", labels(4 * 256 * 256, 3))
show("images", "application/x-safetensors", images)

# bfloat16 is the upper half of float32: bytes 3 and 4 of each.
halves <- as.vector(matrix(logits(64 * 32000), 4)[3:4, ])
show("language model", "application/x-safetensors",
     safetensors("BF16", "[64,32000]", halves, "[64]", labels(64, 32000)))
