package proto

// AppendMessage appends something that the server says of its own, such as a gap, to who takes
// events in a wire form: an SSE event called name, or a text frame. For a gzip form it is text, see
// [AppendGzipText]. json is one of the texts that the Append functions
// of this package make; its type is name.
func AppendMessage(dst []byte, form Form, name string, json []byte) []byte {
	if form.IsSSE() {
		return AppendSSE(dst, form, name, "", json)
	}
	return AppendFrame(dst, OpText, json)
}
