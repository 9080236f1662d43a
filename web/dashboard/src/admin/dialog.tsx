import { type MouseEvent, type ReactNode, useId, useLayoutEffect, useRef } from "react";

interface DialogProps {
  title: string;
  className: string;
  onClose: () => void;
  children: ReactNode;
}

/**
 * A modal dialog: the browser keeps the focus in it, closes it on Escape and puts the focus back
 * where it was. It is open for as long as it is rendered; a click beside it closes it too.
 */
export function Dialog({ title, className, onClose, children }: DialogProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  // Before the element is taken away, or the focus would not go back.
  useLayoutEffect(() => {
    const shown = dialog.current;
    shown?.showModal();
    return () => shown?.close();
  }, []);
  function clicked(event: MouseEvent) {
    if (event.target === dialog.current) onClose();
  }
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: by the keyboard it is closed with Escape
    <dialog ref={dialog} className={className} aria-labelledby={id} onCancel={onClose} onClick={clicked}>
      <div className="dialog-body">
        <h2 id={id}>{title}</h2>
        {children}
      </div>
    </dialog>
  );
}
