import { MillraceDefaults } from "@millrace/react";
import { type FormEvent, useEffect, useMemo, useRef, useState } from "react";
import { Feeds } from "./feeds.js";
import { type Account, currentAccount, defaultsOf, keepToken } from "./model/account.js";
import { spoken, unacknowledged } from "./model/alerts.js";
import { createLive, LiveContext, useLiveData, useUser } from "./model/live.js";
import { hashOf, useRoute, VIEWS, type View } from "./model/route.js";
import { useStore } from "./model/store.js";
import { Brand, Sign, ThemeToggle } from "./shared/controls.js";
import { LinkNotice, LinkPill } from "./shared/states.js";
import { AlertsView } from "./views/alerts.js";
import { CouncilView } from "./views/council.js";
import { DashboardView } from "./views/dashboard.js";
import { StreamsView } from "./views/streams.js";
import "./app.css";

const PAGES: Record<View, { label: string; sign: string; view: () => React.JSX.Element }> = {
  dashboard: { label: "Dashboard", sign: "M4 4h7v9H4zM13 4h7v5h-7zM13 11h7v9h-7zM4 15h7v5H4z", view: DashboardView },
  alerts: {
    label: "Alerts",
    sign: "M6 10a6 6 0 1 1 12 0c0 5 2 6 2 7H4c0-1 2-2 2-7Zm4 10a2.2 2.2 0 0 0 4 0",
    view: AlertsView,
  },
  council: { label: "Council", sign: "M5 20V9M10 20V4M15 20v-8M20 20V7", view: CouncilView },
  streams: {
    label: "Streams",
    sign: "M2 7c3.3 0 3.3-2 6.7-2S12 7 15.3 7 18.7 5 22 5M2 13c3.3 0 3.3-2 6.7-2S12 13 15.3 13s3.4-2 6.7-2M2 19c3.3 0 3.3-2 6.7-2s3.3 2 6.6 2 3.4-2 6.7-2",
    view: StreamsView,
  },
};

function Navigation({ current }: { current: View }) {
  const { alerts, council } = useLiveData();
  const open = unacknowledged(useStore(alerts));
  const seen = useStore(council);
  return (
    <nav className="nav" aria-label="Views">
      <ul>
        {VIEWS.map((view) => (
          <li key={view}>
            <a
              href={hashOf(view, view === "council" ? seen : undefined)}
              aria-current={view === current ? "page" : undefined}
            >
              <Sign path={PAGES[view].sign} />
              <span className="nav-label">{PAGES[view].label}</span>
              {view === "alerts" && open > 0 && (
                <span className="badge number">
                  {open > 99 ? "99+" : open}
                  <span className="unseen"> unacknowledged</span>
                </span>
              )}
            </a>
          </li>
        ))}
      </ul>
    </nav>
  );
}

/** The document's title counts the alerts that nobody has acknowledged: it is what a tab in the background shows. */
function Title({ view }: { view: View }) {
  const open = unacknowledged(useStore(useLiveData().alerts));
  return <title>{`${open > 0 ? `(${open}) ` : ""}${PAGES[view].label} · Millrace`}</title>;
}

/** Reads out an alert as it comes: a critical one at once, others when there is a pause. */
function Announcer() {
  const alert = useStore(useLiveData().newest);
  const critical = alert?.severity === "critical";
  return (
    <div className="unseen">
      <div aria-live="polite">{alert && !critical ? spoken(alert) : ""}</div>
      <div aria-live="assertive">{alert && critical ? spoken(alert) : ""}</div>
    </div>
  );
}

interface AccountDialogProps {
  account: Account;
  onChange: () => void;
}

/** Who looks: a user of one's choice where the gateway asks nobody, else a token. */
function AccountDialog({ account, onChange }: AccountDialogProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const user = useUser();

  function submit(event: FormEvent<HTMLFormElement>): void {
    const form = new FormData(event.currentTarget);
    const userId = String(form.get("user") ?? "").trim();
    keepToken(String(form.get("token") ?? "").trim() || undefined);
    const query = userId ? `?${new URLSearchParams({ userId })}` : "";
    history.replaceState(null, "", `${location.pathname}${query}${location.hash}`);
    onChange();
  }

  return (
    <>
      <button
        type="button"
        className="quiet account"
        onClick={() => dialog.current?.showModal()}
        aria-haspopup="dialog"
      >
        <Sign path="M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8ZM4.5 20.5a7.5 7.5 0 0 1 15 0" />
        <span className="account-name">{user ?? "Guest"}</span>
      </button>
      <dialog ref={dialog} aria-labelledby="account-title">
        <form method="dialog" onSubmit={submit}>
          <h2 id="account-title">Who is looking?</h2>
          <p className="hint">
            Alerts go to a user. Without authentication anybody may be anyone; with it a token says who you are. It is
            kept for this tab until you close it.
          </p>
          <label htmlFor="account-user">User, without authentication</label>
          <input
            id="account-user"
            name="user"
            defaultValue={account.userId}
            placeholder="456"
            maxLength={128}
            pattern="[A-Za-z0-9_.@=\|+\-]*"
            autoComplete="off"
            spellCheck={false}
          />
          <label htmlFor="account-token">Token</label>
          <input id="account-token" name="token" type="password" defaultValue={account.token} autoComplete="off" />
          <div className="line dialog-end">
            <button type="button" onClick={() => dialog.current?.close()}>
              Cancel
            </button>
            <button type="submit" className="primary">
              Connect
            </button>
          </div>
        </form>
      </dialog>
    </>
  );
}

function Shell({ account, onAccount }: { account: Account; onAccount: () => void }) {
  const { view } = useRoute();
  const connection = useStore(useLiveData().connection);
  const Page = PAGES[view].view;
  const main = useRef<HTMLElement>(null);
  const shown = useRef(view);
  // A new view is a new page: the keyboard and the reader begin at its head.
  useEffect(() => {
    if (shown.current !== view) main.current?.focus();
    shown.current = view;
  }, [view]);
  return (
    <div className="shell">
      <Title view={view} />
      <header className="rail">
        <a className="skip" href={hashOf(view)} onClick={() => main.current?.focus()}>
          Skip to the content
        </a>
        <Brand />
        <Navigation current={view} />
        <div className="rail-end">
          <LinkPill status={connection.status} />
          <AccountDialog account={account} onChange={onAccount} />
          <ThemeToggle />
        </div>
      </header>
      <main className="page" ref={main} tabIndex={-1} aria-label={PAGES[view].label}>
        <Page />
      </main>
      <div className="notices">
        <LinkNotice status={connection.status} error={connection.error} onRetry={connection.reconnect} />
      </div>
      <Announcer />
    </div>
  );
}

export function App() {
  const [account, setAccount] = useState(currentAccount);
  const live = useMemo(() => createLive(account), [account]);
  const defaults = useMemo(() => defaultsOf(account), [account]);
  return (
    <MillraceDefaults value={defaults}>
      <LiveContext value={live}>
        <Feeds />
        <Shell account={account} onAccount={() => setAccount(currentAccount())} />
      </LiveContext>
    </MillraceDefaults>
  );
}
