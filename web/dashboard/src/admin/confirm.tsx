import { useState } from "react";
import { ApiError } from "./api.js";
import { Dialog } from "./dialog.js";

/** Something that is not done without being asked for twice. */
export interface Question {
  title: string;
  text: string;
  /** What the button says that does it. */
  verb: string;
  /** Does it, and says what was done. */
  act: () => Promise<string>;
}

interface ConfirmProps {
  question: Question;
  onDone: (told: string) => void;
  onClose: () => void;
}

export function Confirm({ question, onDone, onClose }: ConfirmProps) {
  const [busy, setBusy] = useState(false);
  const [failed, setFailed] = useState<string | null>(null);
  async function act() {
    setBusy(true);
    setFailed(null);
    try {
      onDone(await question.act());
    } catch (failure) {
      setFailed(ApiError.of(failure).message);
      setBusy(false);
    }
  }
  return (
    <Dialog title={question.title} className="confirm" onClose={onClose}>
      <p>{question.text}</p>
      <p className="confirm-failed" role="alert">
        {failed && `It was not done: ${failed}`}
      </p>
      <div className="confirm-buttons">
        {/* biome-ignore lint/a11y/noAutofocus: a stray Enter must do no harm */}
        <button type="button" onClick={onClose} autoFocus>
          Cancel
        </button>
        <button type="button" className="danger" onClick={act} disabled={busy}>
          {question.verb}
        </button>
      </div>
    </Dialog>
  );
}
