"""Bulk work: its progress, and a way to stop it."""

from flask import Blueprint, render_template, url_for

from admin_app.bulk import DONE, Job
from admin_app.page_kit import Answer, asks, then
from admin_app.service import Service
from admin_app.words import tone


def add_jobs(pages: Blueprint, service: Service) -> None:
    pages.add_app_template_filter(job_tone)

    @pages.get("/jobs")
    def jobs() -> str:
        return render_template("jobs.html", here="messages", jobs=service.bulk.jobs())

    @pages.get("/jobs/<job_id>")
    def job(job_id: str) -> str:
        got = service.bulk.get(job_id)
        return render_template("job.html", here="messages", job=got, now=service.now_ms())

    @pages.post("/jobs/<job_id>/stop")
    @asks("stop_job", lambda job_id: job_id)
    def stop_job(job_id: str) -> Answer:
        here = url_for("pages.job", job_id=job_id)
        return then(here, "It stops after its present batch.", lambda: service.bulk.stop(job_id))


def job_tone(job: Job) -> str:
    """Of its state; good only when all that was wanted was done."""
    if job.failed:
        return "bad"
    return "warn" if job.state == DONE and job.refused else tone(job.state)
