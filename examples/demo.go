// Three requests: JSON, images in float32, a language model's logits in bfloat16.
//     go run examples/demo.go http://127.0.0.1:8000
package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"
)

// NaN and infinities are "NaN", "Infinity" or "-Infinity", which a float64 would refuse.
type number float64

func (n *number) UnmarshalJSON(text []byte) error {
	value, err := strconv.ParseFloat(strings.Trim(string(text), `"`), 64)
	*n = number(value)
	return err
}

type tensor struct {
	Dtype   string `json:"dtype"`
	Shape   []int  `json:"shape"`
	Offsets []int  `json:"data_offsets"`
}

// Numbers from 0 to 10 that look like random ones.
func logit(i int) float32 { return float32(float64(i*7919%1009) / 100) }

// A body of safetensors: the header's length in 8 bytes, the header, labels, logits.
func safetensors(dtype string, shape []int, logits any, labelShape []int, labels []int64, classes int) *bytes.Buffer {
	for i := range labels {
		labels[i] = int64(i * 31 % classes)
	}
	middle, body := binary.Size(labels), new(bytes.Buffer)
	header, _ := json.Marshal(map[string]tensor{
		"labels": {"I64", labelShape, []int{0, middle}},
		"logits": {dtype, shape, []int{middle, middle + binary.Size(logits)}},
	})
	for _, part := range []any{uint64(len(header)), header, labels, logits} {
		binary.Write(body, binary.LittleEndian, part)
	}
	return body
}

func show(name, mediaType string, body *bytes.Buffer) {
	request, _ := http.NewRequest("POST", os.Args[1]+"/v1/cross_entropy?outputs=loss", body)
	request.Header = http.Header{"Content-Type": {mediaType}, "Accept": {"application/json"}}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	var answer struct { Loss number; Detail string }
	err = json.NewDecoder(response.Body).Decode(&answer)
	if err != nil || response.StatusCode != 200 {
		log.Fatal(response.Status, ": ", answer.Detail, err)
	}
	fmt.Printf("%-14s %.4f\n", name, answer.Loss)
}

func main() {
	rows := "[[0,0,0,0,0], [0,0,1,1,0], [1,3,2,3,0], [0,0,0,0,0]]"
	show("four rows", "application/json", bytes.NewBufferString(`{"logits": `+rows+`, "labels": [1, 4, 3, 2]}`))
	images, pixels := make([]float32, 4*3*256*256), make([]int64, 4*256*256)
	for i := range images {
		images[i] = logit(i)
	}
	show("images", "application/x-safetensors", safetensors("F32", []int{4, 3, 256, 256}, images, []int{4, 256, 256}, pixels, 3))
	tokens := make([]uint16, 64*32000)
	for i := range tokens {
		tokens[i] = uint16(math.Float32bits(logit(i)) >> 16) // bfloat16: the upper half of float32
	}
	show("language model", "application/x-safetensors", safetensors("BF16", []int{64, 32000}, tokens, []int{64}, make([]int64, 64), 32000))
}
