package proto

// Form is one way of writing an event on a wire.
type Form uint8

const (
	// FormSSE is a Server-Sent Event for HTTP/1.1: one whole chunk, its head and tail included.
	FormSSE Form = iota
	// FormSSEPlain is a Server-Sent Event without a chunk around it, for HTTP/1.0.
	FormSSEPlain
	// FormText is a WebSocket text frame of the payload as it was published. A payload that could
	// be taken for a word of the gateway's own (see [Reserved]) is in an envelope instead.
	FormText
	// FormEnvelope is a WebSocket text frame of {"type":"event","channel":C,"id":ID,"data":payload};
	// without "id" where the event has none.
	FormEnvelope
	// FormSSEWithoutID is FormSSE but for the id line, which it leaves out: the receiver keeps the
	// position that it had.
	FormSSEWithoutID
	// FormSSEPlainWithoutID is FormSSEPlain without the id line.
	FormSSEPlainWithoutID

	// FormSSEGzip is a piece of a gzip stream that says FormSSEPlain and fits behind anything (see
	// [Piece] for shorter ones), as one whole chunk.
	FormSSEGzip
	// FormSSEPlainGzip is FormSSEGzip without a chunk around it.
	FormSSEPlainGzip
	// FormSSEGzipWithoutID is FormSSEGzip of an event without its id.
	FormSSEGzipWithoutID
	// FormSSEPlainGzipWithoutID is FormSSEPlainGzip of an event without its id.
	FormSSEPlainGzipWithoutID
	// FormTextDeflate is FormText with its payload compressed (RFC 7692), where that makes it shorter.
	FormTextDeflate
	// FormEnvelopeDeflate is FormEnvelope likewise.
	FormEnvelopeDeflate

	// FormSSEPacked is FormSSE, but for a large payload, which stands in an event called compressed:
	// {"type":"compressed","encoding":"gzip","data":BASE64}.
	FormSSEPacked
	// FormSSEPlainPacked is FormSSEPlain likewise.
	FormSSEPlainPacked
	// FormSSEPackedWithoutID is FormSSEPacked without the id line.
	FormSSEPackedWithoutID
	// FormSSEPlainPackedWithoutID is FormSSEPlainPacked without the id line.
	FormSSEPlainPackedWithoutID
	// FormTextPacked is FormText, but for a large payload, instead of which the message compressed
	// stands there.
	FormTextPacked
	// FormEnvelopePacked is FormEnvelope, but for a large payload: its data is that message.
	FormEnvelopePacked

	// FormCount is the number of forms, for tables indexed by Form.
	FormCount
	// formPlainCount is the number of those that compress nothing.
	formPlainCount = FormSSEGzip
)

// formFacts is what there is to know about a form.
type formFacts struct {
	// own is the form of the gateway's own words to who takes events in this one. What is said on a
	// gzip stream is its text.
	own Form
	// plain is the form that says the same without compression; of a gzip form, what its text is.
	plain     Form
	withoutID Form
	enveloped Form
}

var forms = [FormCount]formFacts{
	FormSSE:                     {own: FormSSE, plain: FormSSE, withoutID: FormSSEWithoutID, enveloped: FormSSE},
	FormSSEPlain:                {own: FormSSEPlain, plain: FormSSEPlain, withoutID: FormSSEPlainWithoutID, enveloped: FormSSEPlain},
	FormText:                    {own: FormText, plain: FormText, withoutID: FormText, enveloped: FormEnvelope},
	FormEnvelope:                {own: FormText, plain: FormEnvelope, withoutID: FormEnvelope, enveloped: FormEnvelope},
	FormSSEWithoutID:            {own: FormSSE, plain: FormSSEWithoutID, withoutID: FormSSEWithoutID, enveloped: FormSSEWithoutID},
	FormSSEPlainWithoutID:       {own: FormSSEPlain, plain: FormSSEPlainWithoutID, withoutID: FormSSEPlainWithoutID, enveloped: FormSSEPlainWithoutID},
	FormSSEGzip:                 {own: FormSSEPlain, plain: FormSSEPlain, withoutID: FormSSEGzipWithoutID, enveloped: FormSSEGzip},
	FormSSEPlainGzip:            {own: FormSSEPlain, plain: FormSSEPlain, withoutID: FormSSEPlainGzipWithoutID, enveloped: FormSSEPlainGzip},
	FormSSEGzipWithoutID:        {own: FormSSEPlain, plain: FormSSEPlainWithoutID, withoutID: FormSSEGzipWithoutID, enveloped: FormSSEGzipWithoutID},
	FormSSEPlainGzipWithoutID:   {own: FormSSEPlain, plain: FormSSEPlainWithoutID, withoutID: FormSSEPlainGzipWithoutID, enveloped: FormSSEPlainGzipWithoutID},
	FormTextDeflate:             {own: FormText, plain: FormText, withoutID: FormTextDeflate, enveloped: FormEnvelopeDeflate},
	FormEnvelopeDeflate:         {own: FormText, plain: FormEnvelope, withoutID: FormEnvelopeDeflate, enveloped: FormEnvelopeDeflate},
	FormSSEPacked:               {own: FormSSE, plain: FormSSE, withoutID: FormSSEPackedWithoutID, enveloped: FormSSEPacked},
	FormSSEPlainPacked:          {own: FormSSEPlain, plain: FormSSEPlain, withoutID: FormSSEPlainPackedWithoutID, enveloped: FormSSEPlainPacked},
	FormSSEPackedWithoutID:      {own: FormSSE, plain: FormSSEWithoutID, withoutID: FormSSEPackedWithoutID, enveloped: FormSSEPackedWithoutID},
	FormSSEPlainPackedWithoutID: {own: FormSSEPlain, plain: FormSSEPlainWithoutID, withoutID: FormSSEPlainPackedWithoutID, enveloped: FormSSEPlainPackedWithoutID},
	FormTextPacked:              {own: FormText, plain: FormText, withoutID: FormTextPacked, enveloped: FormEnvelopePacked},
	FormEnvelopePacked:          {own: FormText, plain: FormEnvelope, withoutID: FormEnvelopePacked, enveloped: FormEnvelopePacked},
}

// WithoutID is the form that says the same but moves no client's position: for an event stream,
// which has one position for all its channels, the form that leaves the id line out; for a
// WebSocket, whose clients keep a position for each channel, the form itself.
func (f Form) WithoutID() Form { return forms[f].withoutID }

// Enveloped is the form with events in envelopes, for a WebSocket's; else the form itself.
func (f Form) Enveloped() Form { return forms[f].enveloped }

// IsSSE reports whether the form is for event streams, and not for WebSockets.
func (f Form) IsSSE() bool { return forms[f].own != FormText }

// IsGzip reports whether the form is a piece of a gzip stream.
func (f Form) IsGzip() bool { return f >= FormSSEGzip && f <= FormSSEPlainGzipWithoutID }

// IsDeflate reports whether the form is of a WebSocket that has agreed on permessage-deflate.
func (f Form) IsDeflate() bool { return f == FormTextDeflate || f == FormEnvelopeDeflate }

// chunked reports whether a gzip form has chunks around its pieces.
func (f Form) chunked() bool { return f == FormSSEGzip || f == FormSSEGzipWithoutID }
