from django.urls import path

from . import views

urlpatterns = [
    path("", views.home, name="home"),
    path("name/", views.rename, name="rename"),
    path("rooms/<slug:slug>/", views.room, name="room"),
    path("rooms/<slug:slug>/pictures/", views.upload, name="upload"),
    path("pictures/<int:pk>/<str:kind>/", views.picture, name="picture"),
]
