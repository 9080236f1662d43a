import type { Message, Notice } from "@millrace/client";
import { useWebSocket } from "@millrace/react";
import { useEffect, useMemo, useState } from "react";
import { withUser } from "./model/account.js";
import { addAlert, alertOf, mergeAlerts } from "./model/alerts.js";
import { addMetrics, isCampaignChannel, keepCampaigns, removeCampaign } from "./model/campaigns.js";
import { fieldsOf, idsOf, textIn } from "./model/fields.js";
import { addJobEvent, isJobChannel, jobChannels, keepJobs } from "./model/jobs.js";
import { keepUser, readAlerts, useLiveData, useUser, watchAlerts, writeAlerts } from "./model/live.js";
import { useStore } from "./model/store.js";

/** The states in which workers list what there is. */
const JOBS_INDEX = "jobs:index";
const CAMPAIGNS_INDEX = "campaign_metrics:index";
const LISTED_MAX = 24;

/** The ids that an index lists at the moment. */
function useIndex(url: string, channel: string): readonly string[] {
  const [ids, setIds] = useState<readonly string[]>([]);
  useWebSocket(url, {
    channels: [channel],
    onMessage(message) {
      if (message.kind !== "event" && message.kind !== "deleted") return;
      const next = message.kind === "event" ? idsOf(message.data, LISTED_MAX) : [];
      setIds((before) => (`${before}` === `${next}` ? before : next));
    },
  });
  return ids;
}

/** The channels to listen to, each once; the same set as long as they are the same. */
function useChannels(listed: readonly string[], watched: readonly string[]): ReadonlySet<string> {
  const names = [...listed, ...watched].join(" ");
  return useMemo(() => new Set(names.split(" ").filter((name) => name !== "")), [names]);
}

function useJobs(url: string): void {
  const { jobs, watched } = useLiveData();
  const listed = useIndex(url, JOBS_INDEX).flatMap(jobChannels);
  const channels = useChannels(listed, useStore(watched).filter(isJobChannel));
  useEffect(() => jobs.update((all) => keepJobs(all, channels)), [jobs, channels]);
  useWebSocket(url, {
    channels: [...channels],
    // Where a job stands is the sum of what it has told: a log has it from the start.
    since: "0",
    onMessage(message) {
      const { kind, channel } = message;
      if (kind === "event" && channel) jobs.update((all) => addJobEvent(all, channel, message.data, Date.now()));
    },
  });
}

function useCampaigns(url: string): void {
  const { campaigns, watched } = useLiveData();
  const listed = useIndex(url, CAMPAIGNS_INDEX).map((id) => `campaign_metrics:${id}`);
  const channels = useChannels(listed, useStore(watched).filter(isCampaignChannel));
  useEffect(() => campaigns.update((all) => keepCampaigns(all, channels)), [campaigns, channels]);
  useWebSocket(url, {
    channels: [...channels],
    onMessage(message) {
      const { kind, channel } = message;
      if (!channel) return;
      if (kind === "event") campaigns.update((all) => addMetrics(all, channel, message.data, Date.now()));
      if (kind === "deleted") campaigns.update((all) => removeCampaign(all, channel));
    },
  });
}

/** Learns from the greeting who the gateway takes us for. */
function useGreeting(url: string): void {
  const { account, user } = useLiveData();
  useWebSocket(url, {
    channels: [],
    onNotice({ type, data }: Notice) {
      if (type !== "connected") return;
      const id = textIn(fieldsOf(data), "userId") ?? null;
      keepUser(account, id);
      user.update(() => id);
    },
  });
}

function useAlerts(url: string): void {
  const { alerts, newest } = useLiveData();
  const user = useUser();
  // What was heard before, in this tab or in another one, and what is heard from now on.
  useEffect(() => {
    alerts.update(() => (user === undefined ? [] : readAlerts(user)));
    if (user === undefined) return;
    return watchAlerts(user, () => alerts.update((all) => mergeAlerts(all, readAlerts(user))));
  }, [alerts, user]);
  useWebSocket(url, {
    channels: user === undefined ? [] : [`alerts:${user}`],
    since: "0",
    onMessage(message: Message) {
      if (message.kind !== "event" || user === undefined) return;
      const now = Date.now();
      const alert = alertOf(message.data, message.id ?? `${now}`, now);
      if (!alert) return;
      alerts.update((all) => {
        const next = addAlert(all, alert);
        if (next === all) return all;
        writeAlerts(user, next);
        newest.update(() => alert);
        return next;
      });
    },
  });
}

/** Listens to everything that the views show, on the page's one socket, as long as the page is open. */
export function Feeds() {
  const { account, connection } = useLiveData();
  const url = withUser("/ws", account);
  useJobs(url);
  useCampaigns(url);
  useGreeting(url);
  useAlerts(url);
  const { status, error, reconnect } = useWebSocket(url, { channels: [] });
  useEffect(() => connection.update(() => ({ status, error, reconnect })), [connection, status, error, reconnect]);
  return null;
}
