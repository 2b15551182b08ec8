"""Which address leads to which view."""

from django.contrib.auth import views as auth
from django.urls import include, path

from millie.review.api.routes import api
from millie.review.pages import service, submit
from millie.review.users.logins import LoginForm

login = auth.LoginView.as_view(template_name="review/login.html", authentication_form=LoginForm)

handler500 = "millie.review.problems.server_error"
urlpatterns = [
    path("api/v1/", api.urls),
    path("submit", submit.submit, name="submit"),
    path("submit/progress", submit.progress, name="submit_progress"),
    path("jobs/<int:pk>/again", submit.again, name="job_again"),
    path("healthz", service.healthz, name="healthz"),
    path("metrics", service.metrics, name="metrics"),
    path("login", login, name="login"),
    path("logout", auth.LogoutView.as_view(), name="logout"),
    path("", include("millie.review.pages.urls")),
]
