package proto

// AppendMessage appends something that the server says of its own, such as a gap, in a wire form:
// an SSE event called name, or a text frame. json is one of the texts that the Append functions
// of this package make; its type is name.
func AppendMessage(dst []byte, form Form, name string, json []byte) []byte {
	switch form {
	case FormSSE, FormSSEPlain:
		return AppendSSE(dst, form, name, "", json)
	default:
		return AppendFrame(dst, OpText, json)
	}
}
